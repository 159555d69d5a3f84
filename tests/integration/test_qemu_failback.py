"""Whole failbacks of real guests: QEMU at both sites, the appliance and a host agent over loopback TLS, and a guest that says which
of its writes it was told are safe. What it was told is on the disks at home, and it goes on there."""
import json

import guest_records

import harness
from qemu_sites import DISKS, QemuSites, Watch, vm_facts
from sites import sha256


def test_a_guest_fails_back_while_it_writes_and_goes_on_at_home(qemu_sites):
    here, home = qemu_sites.recovery, qemu_sites.home()
    qemu_sites.make_guest("web")
    with Watch(here.console("web")) as away, Watch(home.console("web")) as back:
        away.wait_for(5)
        job = qemu_sites.api.failover("web", recoveryVmCreationOption="CreateVmIfNotFound")
        qemu_sites.suspended(job)
        away.wait_for_more(10)
        qemu_sites.api.resume(job)
        done = qemu_sites.end(job, timeout=120)
        last = away.last()
        went_on = back.expect_to_go_on_after(away)
        downtime = back.seen[last + 1] - away.seen[last]
        print(f"downtime by the guest {downtime:.2f} s, by the job {done['backhaul'].get('downtimeSeconds')}; records {last} and {went_on}")

        # Reverse Replicate: what was written at home since its first instruction, and nothing is scanned.
        qemu_sites.end(qemu_sites.api.commit("web"))
        assert here.qemu_pid("web") is None
        reprotect = qemu_sites.api.reprotect("web")
        qemu_sites.end(reprotect, timeout=120)
        disks = {disk["name"]: disk for disk in qemu_sites.api.job(reprotect)["backhaul"]["round"]["disks"]}
        assert not qemu_sites.api.job(reprotect)["errors"]
        for disk in disks.values():
            assert disk["payloadBytes"] > 0
            assert disk["bytesRead"] <= disk["diskBytes"] // 4, "a scan would read all that is allocated"
        guest_records.expect_records(here.disk("web", "os"), went_on, here.disk("web", "data"))
        qemu_sites.settle()
        harness.wait_until(lambda: not qemu_sites.api.list("/replicationProtectedItems"), what="the end of the protection")
        back.wait_for_more()
    last = back.last()
    qemu_sites.expect_records_at_home("web", last)


def test_cancel_after_the_shutdown_brings_the_guest_back_where_it_was(qemu_sites):
    here, home = qemu_sites.recovery, qemu_sites.home()
    qemu_sites.make_guest("web")
    with Watch(here.console("web")) as away:
        away.wait_for(3)
        done = qemu_sites.fail_back("web", recoveryVmCreationOption="CreateVmIfNotFound")
        last = away.last()
        with Watch(home.console("web")) as back:
            back.wait_for(last + 2)
        undo = qemu_sites.api.cancel_failover("web")
        qemu_sites.end(undo, timeout=120)
        assert home.qemu_pid("web") is None
        away.wait_for(last + 3)
        assert guest_records.starts(away.text()) == [last + 1]
    assert done["state"] == "Succeeded"


def test_a_guest_fails_back_to_another_host_than_it_came_from(folder, pki, record_disks):
    with QemuSites(folder, pki, record_disks, hosts=("hv01", "hv02")) as sites:
        here, first, other = sites.recovery, sites.home("hv01"), sites.home("hv02")
        sites.make_guest("web")
        old = [sha256(first.disks / f"web-{disk}.vhdx") for disk in DISKS]
        with Watch(here.console("web")) as away, Watch(other.console("web")) as back:
            away.wait_for(5)
            sites.fail_back("web", providerIdForAlternateRecovery="hv02", recoveryVmCreationOption="CreateVmIfNotFound")
            last = back.expect_to_go_on_after(away)
            made = json.loads((other.vms / "web" / "vm.json").read_text())
            assert made["vm"]["memory_mib"] == vm_facts("web")["memory_mib"]
            sites.end(sites.api.commit("web"))
        sites.expect_records_at_home("web", last, home="hv02")
        assert [sha256(first.disks / f"web-{disk}.vhdx") for disk in DISKS] == old, "the first location was left alone"
        assert first.qemu_pid("web") is None
