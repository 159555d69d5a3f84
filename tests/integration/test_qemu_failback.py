"""Whole failbacks of real guests: QEMU at both sites, the appliance and a host agent over loopback TLS, and a guest that says which
of its writes it was told are safe. What it was told is on the disks at home, and it goes on there."""
import threading
import time

import guest_records
import pytest

import harness
import sites as sites_module
from qemu_driver import Driver
from sites import Sites

MIB = harness.MIB
DISKS = ("os", "data")


class Watch:
    """Follows a console's log: when each record was acknowledged, by our clock."""

    def __init__(self, log):
        self.log, self.seen, self.ending = log, {}, threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()

    def _follow(self):
        while not self.ending.wait(0.005):
            for number in guest_records.acknowledged(self.text()):
                self.seen.setdefault(number, time.monotonic())

    def text(self):
        try:
            return self.log.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def last(self):
        return max(guest_records.acknowledged(self.text()), default=-1)

    def wait_for(self, number, timeout=120):
        harness.wait_until(lambda: self.last() >= number, timeout, f"record {number} in {self.log}")
        return self.last()

    def wait_for_more(self, count=3):
        return self.wait_for(self.last() + count)

    def __enter__(self):
        return self

    def __exit__(self, *ignored):
        self.ending.set()
        self.thread.join()


class Place(sites_module.Place):
    """A site whose VMs are QEMU's."""

    def driver(self):
        return {"name": "vms", "kind": "qemu", "state": self.vms, "machine": "pc", "reserve_bytes": MIB,
                "networks": {"LAN": "user,restrict=on"}}

    def console(self, vm):
        return self.vms / vm / "console.log"

    def qemu_pid(self, vm):
        try:
            return int((self.vms / vm / "qemu.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def kill_all(self):
        for file in self.vms.glob("*/qemu.pid"):
            harness.run("kill", "-9", file.read_text().strip(), check=False)


class QemuSites(Sites):
    def __init__(self, folder, pki, **options):
        super().__init__(folder, pki, **options)
        self.recovery = Place(self.folder / "recovery")
        self.primary = {name: Place(self.folder / name) for name in self.primary}

    def __exit__(self, *error):
        try:
            return super().__exit__(*error)
        finally:
            for place in (self.recovery, *self.primary.values()):
                place.kill_all()

    def make_guest(self, vm, home="hv01"):
        """A VM that failed over: its old VHDX disks at home, without a record. It is started at the recovery site by the driver."""
        for disk in DISKS:
            harness.copy_sparse(self.folder / f"{disk}.raw", self.recovery.disk(vm, disk))
            harness.run("qemu-img", "convert", "-f", "raw", "-O", "vhdx", self.folder / f"{disk}.raw",
                        self.primary[home].disks / f"{vm}-{disk}.vhdx")
        vm_facts = {"name": vm, "generation": 1, "memory_mib": 256, "cpus": 1, "firmware": "bios",
                    "nics": [{"name": "eth0", "network": "LAN", "mac": ""}]}
        away = [{"name": disk, "path": f"{vm}-{disk}.img", "format": "raw"} for disk in DISKS]
        here = [{"name": disk, "path": f"{vm}-{disk}.vhdx", "format": "vhdx"} for disk in DISKS]
        driver = Driver(self.folder, vm=vm, state=str(self.recovery.vms), networks={"LAN": "user,restrict=on"})
        driver.disks, driver.options["disks"] = away, [str(self.recovery.disks)]
        driver.__enter__().create_and_start(**vm_facts)
        driver.end()  # the guest lives on, and the appliance's own driver finds it
        self.api.call("PUT", f"/replicationProtectedItems/{vm}", {"properties": {
            "vm": vm_facts, "recovery": {"driver": "vms", "disks": away},
            "primary": {"host": home, "driver": "vms", "disks": here},
            "shutdown": {"timeout_s": 60, "allow_force": False}}})

    def expect_records_at_home(self, vm, at_least, home="hv01"):
        """Takes the VM down by its button and looks into its disks; nothing replicates any more."""
        place = self.primary[home]
        with Driver(self.folder, vm=vm, state=str(place.vms)) as driver:
            driver.disks, driver.options["disks"] = [], [str(place.disks)]
            assert driver.call("shut-down", timeout_s=60, allow_force=False) == {"forced": False}
            assert not list(driver.directory().glob("overlay*"))
        raw = [self.folder / f"{vm}-{disk}.now" for disk in DISKS]
        for disk, copy in zip(DISKS, raw):
            harness.run("qemu-img", "convert", "-f", "vhdx", "-O", "raw", place.disks / f"{vm}-{disk}.vhdx", copy)
        guest_records.expect_records(raw[0], at_least, raw[1])


@pytest.fixture
def qemu_sites(folder, pki):
    guest_records.build(folder / "os.raw", folder / "data.raw")
    with QemuSites(folder, pki) as made:
        yield made


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
        assert guest_records.said(away.text())[-1] == "bye"
        went_on = back.wait_for(last + 3)
        assert guest_records.starts(back.text()) == [last + 1], "no record is missing, none is there twice"
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
