"""Failbacks through the API of VMs whose snapshots a hypervisor only exports by NBD: the driver is the example's `vm-driver-nbd`, the
exporter nbdkit. Both sites' drivers export, so that the way back is read by the host agent in the same way."""
import contextlib
import json
import os
import pathlib
import shutil
import signal

import pytest

import harness
import sites as sites_module
from harness import MIB
from nbd_servers import qemu_nbd, uri
from sites import ENDED, Refused, Sites

ITEM = "/replicationProtectedItems/{}"
BIG = {"os": 64 * MIB, "data": MIB + 512 * 3}
# Where a brake is put, what lies behind the first so many bytes of a disk is not read before the brake is released.
FREE = 16 * MIB
BRAKED_NBDKIT = r"""#!/bin/sh
# nbdkit --readonly --unix SOCKET --pidfile FILE file IMAGE
test -e {brake} || exec {nbdkit} "$@"
exec {nbdkit} "$1" "$2" "$3" "$4" "$5" eval get_size="stat -c %s '$7'" can_multi_conn="exit 0" \
  pread="while test \$4 -ge {free} -a -e {brake}; do sleep 0.1; done
         dd if='$7' iflag=skip_bytes,count_bytes skip=\$4 count=\$3 bs=1M status=none"
"""


class Place(sites_module.Place):
    """A site whose driver only exports."""

    def __init__(self, root):
        super().__init__(root, sites_module.DRIVER.parent / "vm-driver-nbd")
        self.brake, programs = root / "brake", root / "bin"
        programs.mkdir()
        wrapper = programs / "nbdkit"
        wrapper.write_text(BRAKED_NBDKIT.format(brake=self.brake, nbdkit=shutil.which("nbdkit"), free=FREE))
        wrapper.chmod(0o755)
        self.path = f"{programs}:{os.environ['PATH']}"

    def environment(self):
        return {**super().environment(), "PATH": self.path}

    def exporters(self, vm="*"):
        """The processes that export now, by their sockets."""
        found = {}
        for file in self.vms.glob(f"{vm}/*.sock.pid"):
            with contextlib.suppress(OSError, ValueError):
                pid = int(file.read_text())
                if str(file)[:-4].encode() in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    found[str(file)[:-4]] = pid
        return found

    def kill_exporters(self, vm="*"):
        killed = self.exporters(vm)
        for pid in killed.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return killed

    @contextlib.contextmanager
    def braked(self):
        """Gives the function that releases the brake."""
        self.brake.touch()
        release = lambda: self.brake.unlink(missing_ok=True)
        try:
            yield release
        finally:
            release()


@pytest.fixture(scope="module")
def shared(pki):
    with harness.temporary_folder() as folder:
        sites = Sites(folder, pki)
        sites.recovery = Place(folder / "exporting")
        sites.primary = {"hv01": Place(folder / "hv")}
        try:
            with sites:
                yield sites
        finally:
            for place in (sites.recovery, sites.home()):
                place.kill_exporters()


@pytest.fixture
def sites(shared):
    yield shared
    shared.settle()


def disks_of(job):
    return {disk["name"]: disk for disk in job["backhaul"]["round"]["disks"]}


def codes(job):
    return [error["providerErrorDetails"]["errorId"] for error in job["errors"]]


def in_the_middle(sites, job, done_bytes):
    now = sites.wait_job(job, lambda now: now["state"] in ENDED or now["backhaul"].get("progress", {}).get("bytesDone", 0) > done_bytes)
    assert now["backhaul"]["currentTask"] == "Replicate" and now["state"] == "InProgress", json.dumps(now, indent=1)[:6000]


def expect_verified(sites, job, place, vm):
    for name, disk in disks_of(job).items():
        assert disk["rootDigestSource"] == disk["rootDigestTarget"] == harness.digest(place.disk(vm, name)), disk


def expect_as_before(sites, vm, old):
    assert sites.digests(vm, sites.home()) == old
    assert sites.leftovers() == []
    sites.expect_powers(vm, recovery="running", primary="off")
    assert sites.recovery.exporters(vm) == {}, "released with the snapshot"


def test_the_whole_circle_is_read_from_exports(sites, vm):
    sites.declare(vm, replication_minutes=1)
    job = sites.api.failover(vm)
    sites.suspended(job)
    sites.recovery.write(vm, "os", 5 * MIB, "written while it waits")
    sites.api.resume(job)
    done = sites.end(job)
    sites.expect_home_equals_recovery(vm)
    expect_verified(sites, done, sites.home(), vm)
    assert b"written while it waits" in sites.home().disk(vm, "os").read_bytes()
    assert disks_of(done)["os"]["bytesRead"] < 4 * MIB, "the last delta reads what the tracker names"
    assert sites.recovery.exporters(vm) == {}
    sites.end(sites.api.commit(vm))

    sites.home().write(vm, "data", 3 * MIB, "written at home")
    sites.end(sites.api.reprotect(vm))
    sites.home().write(vm, "os", 6 * MIB, "written while protected")
    harness.wait_until(lambda: sites.digests(vm, sites.recovery) == sites.digests(vm, sites.home()), 120, "the next cycle")
    back = sites.end(sites.api.failover(vm, direction="PrimaryToRecovery"))
    sites.expect_home_equals_recovery(vm)
    expect_verified(sites, back, sites.recovery, vm)
    sites.expect_powers(vm, recovery="running", primary="off")


@pytest.mark.parametrize("cancel", [False, True], ids=["goes on", "cancelled"])
def test_an_exporter_that_dies_costs_a_retry_and_nothing_else(sites, vm, cancel):
    vm += "c" if cancel else ""
    old = sites.declare(vm, BIG, changed=1.0)
    with sites.recovery.braked() as release_brake:
        job = sites.api.failover(vm)
        in_the_middle(sites, job, 2 * MIB)
        assert len(sites.recovery.kill_exporters(vm)) == 2
        seen = sites.wait_job(job, lambda now: now["errors"])
        assert codes(seen)[0] == "nbd.server_gone", json.dumps(seen["errors"])
        assert seen["state"] == "InProgress", "a passing fault"
        if cancel:
            sites.api.cancel(job)
            release_brake()  # an nbdkit that is told to end answers first
            sites.end(job, "Cancelled")
            return expect_as_before(sites, vm, old)
        release_brake()
    sites.suspended(job)
    sites.api.resume(job)
    done = sites.end(job)
    assert done["backhaul"]["round"]["number"] > 2, "a snapshot that is gone is taken anew"
    sites.expect_home_equals_recovery(vm, BIG)
    expect_verified(sites, done, sites.home(), vm)


def test_a_killed_appliance_goes_on_from_the_same_export(sites, vm):
    sites.declare(vm, BIG, changed=1.0)
    with sites.recovery.braked():
        job = sites.api.failover(vm)
        in_the_middle(sites, job, 6 * MIB)
        sites.appliance.kill()
        assert len(sites.recovery.exporters(vm)) == 2, "they outlive it"
    sites.appliance.start()
    waiting = sites.suspended(job)
    assert waiting["backhaul"]["round"]["number"] == 1
    assert sum(disk["resumedBytes"] for disk in disks_of(waiting).values()) > 0
    sites.api.resume(job)
    expect_verified(sites, sites.end(job), sites.home(), vm)
    sites.expect_home_equals_recovery(vm, BIG)


def test_an_export_outside_of_the_sources_is_refused(sites, vm, folder):
    declared = sites.declaration(vm)
    declared["recovery"]["settings"] = {"sockets": str(folder)}
    old = sites.declare(vm)
    sites.api.call("PUT", ITEM.format(vm), {"properties": declared})
    failed = sites.end(sites.api.failover(vm), "Failed")
    assert codes(failed) == ["io.outside_store"] and str(folder) in json.dumps(failed["errors"]), failed["errors"]
    assert sites.digests(vm, sites.home()) == old
    sites.end(sites.api.cancel_failover(vm))
    expect_as_before(sites, vm, old)
    assert list(folder.iterdir()) == [], "the driver was told to release it"


def test_a_disk_that_is_declared_as_an_export_is_estimated_fails_back_and_is_no_target(sites, vm):
    sites.declare(vm, changed=0.5)
    declared = sites.declaration(vm)
    socket = sites.recovery.vms / f"{vm}.sock"

    def put(path, site="recovery"):
        disks = [{**disk, "path": path} if disk["name"] == "os" else disk for disk in declared[site]["disks"]]
        sites.api.call("PUT", ITEM.format(vm), {"properties": {**declared, site: {**declared[site], "disks": disks}}})

    for path, site in (("nbds://localhost/os", "recovery"), ("nbd://192.0.2.1/os", "recovery"), (uri(socket, "os"), "primary")):
        with pytest.raises(Refused) as refused:
            put(path, site)
        assert refused.value.status == 400 and "disks.os" in json.dumps(refused.value.body)
    put(uri(socket, "os"))
    with qemu_nbd(sites.recovery.disk(vm, "os"), socket, name="os"):
        estimate = sites.cli_json("item", "preflight", vm)["properties"]["estimate"]
    assert "not sampled" not in json.dumps(estimate) and estimate["bytes"] > MIB, estimate
    sites.fail_back(vm)
    sites.expect_home_equals_recovery(vm)
    sites.end(sites.api.commit(vm))
    with pytest.raises(Refused) as refused:
        sites.api.reprotect(vm)
    assert (refused.value.status, refused.value.code) == (409, "nbd.read_only")
    put(f"{vm}-os.img")
    sites.end(sites.api.reprotect(vm))
    sites.expect_home_equals_recovery(vm)
