"""Both sites with QEMU: the `qemu` driver at the appliance and at the host agents, VMs whose guests write numbered records
(tests/guest/guest_records.py), and a watch on their consoles that says when each record was acknowledged."""
import threading
import time

import guest_records

import harness
import sites as sites_module
from qemu_driver import Driver, alive
from sites import Sites

MIB = harness.MIB
DISKS = ("os", "data")


def vm_facts(vm):
    return {"name": vm, "generation": 1, "memory_mib": 256, "cpus": 1, "firmware": "bios",
            "nics": [{"name": "eth0", "network": "LAN", "mac": ""}]}


def disk_places(vm, ending, disk_format):
    return [{"name": disk, "path": f"{vm}-{disk}.{ending}", "format": disk_format} for disk in DISKS]


class Watch:
    """Follows a console's log: when each record was acknowledged, by our clock."""

    def __init__(self, log):
        self.log, self.seen, self.newest, self.ending = log, {}, -1, threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()

    def _follow(self):
        while not self.ending.wait(0.005):
            for number in guest_records.acknowledged(self.text()):
                self.seen.setdefault(number, time.monotonic())
                self.newest = max(self.newest, number)

    def text(self):
        try:
            return self.log.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def last(self):
        return max(guest_records.acknowledged(self.text()), default=-1)

    def wait_for(self, number, timeout=120):
        harness.wait_until(lambda: self.newest >= number, timeout, f"record {number} in {self.log}")
        return self.last()

    def wait_for_more(self, count=3):
        return self.wait_for(self.last() + count)

    def expect_to_go_on_after(self, before, count=3):
        """Another site's guest has ended in order, and this one goes on with its next record. Returns the last one here."""
        last = before.last()
        assert guest_records.said(before.text())[-1] == "bye"
        went_on = self.wait_for(last + count)
        assert guest_records.starts(self.text()) == [last + 1], "no record is missing, none is there twice"
        return went_on

    def __enter__(self):
        return self

    def __exit__(self, *ignored):
        self.ending.set()
        self.thread.join()


class Place(sites_module.Place):
    """A site whose VMs are QEMU's."""
    binary = "qemu-system-x86_64"

    def driver(self):
        return {"name": "vms", "kind": "qemu", "state": self.vms, "machine": "pc", "reserve_bytes": MIB, "binary": self.binary,
                "networks": {"LAN": "user,restrict=on"}}

    def console(self, vm):
        return self.vms / vm / "console.log"

    def qemu_pid(self, vm):
        """Of the VM's QEMU while that lives."""
        try:
            pid = int((self.vms / vm / "qemu.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if alive(pid) else None

    def kill_all(self):
        for file in self.vms.glob("*/qemu.pid"):
            harness.run("kill", "-9", file.read_text().strip(), check=False)


class QemuSites(Sites):
    """Whatever QEMU a test leaves behind is killed at the end."""

    def __init__(self, folder, pki, fresh_disks, **options):
        super().__init__(folder, pki, **options)
        self.fresh_disks = fresh_disks  # the folder of a guest's disks before its first record
        self.recovery = Place(self.folder / "recovery")
        self.primary = {name: Place(self.folder / name) for name in self.primary}

    def __exit__(self, *error):
        try:
            return super().__exit__(*error)
        finally:
            for place in (self.recovery, *self.primary.values()):
                place.kill_all()

    def make_guest(self, vm, home="hv01", **more):
        """A VM that failed over: its old VHDX disks at home, without a record. It is started at the recovery site by the driver.
        `more` is for the item's declaration."""
        for disk in DISKS:
            harness.copy_sparse(self.fresh_disks / f"{disk}.raw", self.recovery.disk(vm, disk))
            harness.run("qemu-img", "convert", "-f", "raw", "-O", "vhdx", self.fresh_disks / f"{disk}.raw",
                        self.primary[home].disks / f"{vm}-{disk}.vhdx")
        driver = Driver(self.folder, vm=vm, state=str(self.recovery.vms), networks={"LAN": "user,restrict=on"})
        driver.disks, driver.options["disks"] = disk_places(vm, "img", "raw"), [str(self.recovery.disks)]
        driver.__enter__().create_and_start(**vm_facts(vm))
        driver.end()  # the guest lives on, and the appliance's own driver finds it
        self.declare_guest(vm, home, **more)

    def declare_guest(self, vm, home="hv01", settings=None, **more):
        """Its item, made or updated. `settings` are those of the VM at home."""
        self.api.call("PUT", f"/replicationProtectedItems/{vm}", {"properties": {
            "vm": vm_facts(vm), "recovery": {"driver": "vms", "disks": disk_places(vm, "img", "raw")},
            "primary": {"host": home, "driver": "vms", "disks": disk_places(vm, "vhdx", "vhdx"), "settings": settings or {}},
            "shutdown": {"timeout_s": 60, "allow_force": False}, **more}})

    def expect_records_at_home(self, vm, at_least, home="hv01"):
        """Takes the VM down by its button and looks into its disks; nothing replicates any more. Returns the number of records."""
        place = self.primary[home]
        with Driver(self.folder, vm=vm, state=str(place.vms)) as driver:
            driver.disks, driver.options["disks"] = [], [str(place.disks)]
            assert not driver.call("shut-down", timeout_s=60, allow_force=False)["forced"]
            assert not list(driver.directory().glob("overlay*"))
        raw = [self.folder / f"{vm}-{disk}.now" for disk in DISKS]
        for disk, copy in zip(DISKS, raw):
            harness.run("qemu-img", "convert", "-f", "vhdx", "-O", "raw", place.disks / f"{vm}-{disk}.vhdx", copy)
        return guest_records.expect_records(raw[0], at_least, raw[1])
