"""Whole failbacks of real guests: QEMU at both sites, the appliance and a host agent over loopback TLS, and a guest that says which
of its writes it was told are safe. What it was told is on the disks at home, and it goes on there."""
import datetime
import json
import os
import signal
import time

import guest_records
import pytest

import harness
from qemu_sites import DISKS, QemuSites, Watch, vm_facts
from sites import sha256


def expect_downtime(sites, job, done, away, back, last):
    """The job's downtime has all its parts, and lies where the guest's own gap lies."""
    downtime = done["backhaul"]["downtime"]
    gap = back.seen[last + 1] - away.seen[last]
    print(f"downtime by the guest {gap:.2f} s, by the job {downtime}")
    assert downtime["from"] == "LastWrite" and downtime["until"] == "FirstWrite"
    assert downtime["seconds"] == done["backhaul"]["downtimeSeconds"] == pytest.approx(sum(downtime["parts"].values()))
    assert downtime["parts"]["bootSeconds"] > 0.3, "no guest boots as fast"
    assert downtime["projected"]["seconds"] == pytest.approx(sum(downtime["projected"]["parts"].values()))
    first_record = time.time() - time.monotonic() + back.seen[last + 1]
    until = datetime.datetime.fromisoformat(downtime["untilTime"]).timestamp()
    assert until - downtime["unsureSeconds"] <= first_record + 0.1, "the first write came before the first record was told"
    shown = sites.cli("job", "show", job).stdout
    assert "measured" in shown and "from the source's last write to the target's first write" in shown
    assert f"boot {downtime['parts']['bootSeconds']:.2f}" in shown
    metrics = sites.api.raw("GET", "/metrics")[2]
    assert 'backhaul_item_downtime_seconds{item="web",part="boot"}' in metrics


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
        expect_downtime(qemu_sites, job, done, away, back, last)

        # Reverse Replicate: what was written at home since its first instruction, and nothing is scanned.
        qemu_sites.end(qemu_sites.api.commit("web"))
        assert here.qemu_pid("web") is None
        reprotect = qemu_sites.api.reprotect("web")
        qemu_sites.end(reprotect, timeout=120)
        disks = {disk["name"]: disk for disk in qemu_sites.api.job(reprotect)["backhaul"]["round"]["disks"]}
        assert not qemu_sites.api.job(reprotect)["errors"]
        for name, disk in disks.items():
            print(f"{name}: {disk['bytesRead']} bytes read, {disk['blocksChanged']} blocks changed, "
                  f"{harness.allocated_bytes(here.disk('web', name))} bytes allocated")
            # QEMU's overlays are committed in units of two blocks, and what is written need not differ.
            assert 0 < disk["payloadBytes"] and disk["bytesRead"] <= 3 * disk["blocksChanged"] * harness.BLOCK + harness.MIB
        assert "compares everything" not in qemu_sites.host().log()
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


def test_a_guest_that_finds_no_disk_at_home_is_brought_back_by_undo_and_by_the_commit_policy(qemu_sites):
    here, home, api = qemu_sites.recovery, qemu_sites.home(), qemu_sites.api
    rule = {"disk_bus": "scsi", "health": {"console": "BHREC start"}}  # the guest has no driver for that bus
    qemu_sites.make_guest("web", settings=rule, boot={"wait_s": 0})  # it will never write
    with Watch(here.console("web")) as away:
        away.wait_for(3)
        qemu_sites.fail_back("web", recoveryVmCreationOption="CreateVmIfNotFound")
        last = away.last()
        harness.wait_until(lambda: "no data partition" in home.console("web").read_text(errors="replace"), 120, "the guest's complaint")
        assert api.state("web") == "PlannedFailoverCommitPending"
        qemu_sites.end(api.cancel_failover("web"), timeout=120)
        assert home.qemu_pid("web") is None
        away.wait_for(last + 3)
        assert guest_records.starts(away.text()) == [last + 1]

        # As long as a guest that can boot would need; then the policy's minute.
        qemu_sites.declare_guest("web", settings=rule, boot={"wait_s": 20}, commit_policy={"mode": "undo-after", "minutes": 1})
        qemu_sites.fail_back("web")
        last = away.last()
        harness.wait_until(lambda: api.state("web") == "FailoverCommitted", 120, "the policy's undo")
        assert any(entry["actor"] == "policy" for entry in api.audit(object="item/web"))
        assert home.qemu_pid("web") is None
        away.wait_for(last + 3)
        assert guest_records.starts(away.text()) == [last + 1]


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


@pytest.mark.parametrize("moment", ["before its first instruction", "while it boots, and the appliance too"])
def test_a_host_agent_killed_in_the_guest_s_start_at_home_starts_it_once(folder, pki, record_disks, moment):
    sites = QemuSites(folder, pki, record_disks)
    held, launches = folder / "held", folder / "launches"
    binary = folder / "qemu"  # comes back only when nobody holds it, with QEMU there and its guest stopped
    binary.write_text(f'#!/bin/sh\nqemu-system-x86_64 "$@" || exit\necho launched >> {launches}\n'
                      f"while [ -e {held} ]; do sleep 0.02; done\n")
    binary.chmod(0o755)
    sites.home().binary = binary
    with sites:
        here, home = sites.recovery, sites.home()
        sites.make_guest("web")
        with Watch(here.console("web")) as away, Watch(home.console("web")) as back:
            away.wait_for(3)
            job = sites.api.failover("web", recoveryVmCreationOption="CreateVmIfNotFound")
            sites.suspended(job)
            held.touch()
            sites.api.resume(job)
            harness.wait_until(launches.exists, 120, "QEMU at home")
            if moment == "before its first instruction":
                sites.host().kill()
                held.unlink()
            else:
                os.kill(sites.appliance.process.pid, signal.SIGSTOP)  # it does not hear that the guest was started
                held.unlink()
                harness.wait_until(back.text, 120, "the boot loader's first words")
                sites.host().kill()
                sites.appliance.kill()
                sites.appliance.start()
            sites.host().start()
            sites.end(job, timeout=180)
            last = back.expect_to_go_on_after(away)
            before = home.vms / "web" / "console.log.1"
            assert guest_records.starts(before.read_text(errors="replace") if before.exists() else "") == []
            assert len(launches.read_text().split()) == (2 if moment == "before its first instruction" else 1)
            sites.end(sites.api.commit("web"))
        sites.expect_records_at_home("web", last)
