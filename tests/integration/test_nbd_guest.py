"""A running guest's disks as QEMU's own NBD server exports them: a point in time that QEMU keeps by copying before it writes. What arrives
is that moment, byte for byte, while the guest goes on."""
import harness
import pytest
from harness import MIB
from nbd_servers import uri
from qemu_driver import Driver
from qemu_sites import Watch, vm_facts

DISKS = ("os", "data")


@pytest.fixture
def guest(folder, record_disks):
    for disk in DISKS:
        harness.copy_sparse(record_disks / f"{disk}.raw", folder / f"{disk}.raw")
    with Driver(folder, [f"{disk}.raw" for disk in DISKS], networks={"LAN": "user,restrict=on"}) as driver:
        driver.create_and_start(**vm_facts("web"))
        yield driver


def execute(guest, command, **arguments):
    answer = guest.qmp({"execute": command, "arguments": arguments})[0]
    assert "return" in answer, answer
    return answer["return"]


def export_this_moment(guest, folder, full=False):
    """Stops the guest for a moment, keeps copies of its disks' files, and has QEMU export the same. `full`: QEMU finds no room for what it
    has to keep. Returns the socket."""
    execute(guest, "stop")
    for number, disk in enumerate(DISKS):
        harness.copy_sparse(folder / f"{disk}.raw", folder / f"{disk}.then")
        room = folder / f"{disk}.room"
        with open(room, "wb") as file:
            file.truncate((folder / f"{disk}.raw").stat().st_size)
        device = f"/machine/peripheral/bhd{number}"
        image = {"driver": "file", "filename": str(room)}
        if full:
            image = {"driver": "blkdebug", "image": image, "inject-error": [{"event": "pwritev", "errno": 28}]}
        execute(guest, "blockdev-add", **image, **{"node-name": f"room{number}"})
        execute(guest, "blockdev-add", **{"driver": "copy-before-write", "node-name": f"before{number}", "file": f"bhdisk{number}",
                                           "target": f"room{number}", "on-cbw-error": "break-snapshot"})
        execute(guest, "qom-set", path=device, property="drive", value=f"before{number}")
        execute(guest, "blockdev-add", **{"driver": "snapshot-access", "node-name": f"then{number}", "file": f"before{number}"})
    socket = folder / "nbd"
    execute(guest, "nbd-server-start", addr={"type": "unix", "data": {"path": str(socket)}})
    for number, disk in enumerate(DISKS):
        execute(guest, "block-export-add", **{"type": "nbd", "id": f"export{number}", "node-name": f"then{number}", "name": disk})
    execute(guest, "cont")
    return socket


def test_what_qemu_exports_of_a_running_guest_arrives_as_it_was(folder, pki, guest):
    (folder / "store").mkdir()
    with harness.Host(folder / "store", pki) as host, Watch(guest.directory() / "console.log") as watch:
        watch.wait_for(5)
        socket = export_this_moment(guest, folder)
        for disk in DISKS:
            watch.wait_for_more(5)
            sent = harness.send(host, pki, uri(socket, disk), disk, sync="full", lanes=3, limit=16 * MIB, verify="full")
            assert sent["root_digest_source"] == sent["root_digest_target"]
            assert sent["root_digest_source"] == harness.backhaul("digest", uri(socket, disk))["root_digest"]
        watch.wait_for_more(5)
        for disk in DISKS:
            harness.run("cmp", folder / f"{disk}.then", host.path(disk))
            assert harness.run("cmp", "-s", folder / f"{disk}.raw", host.path(disk), check=False).returncode == 1, "the guest went on"
        again = harness.send(host, pki, uri(socket, "os"), "os")
        assert again["blocks_changed"] == 0
    assert guest.status() == "running"


def test_an_export_that_broke_is_noticed_and_the_old_disk_comes_back(folder, pki, guest):
    (folder / "store").mkdir()
    with harness.Host(folder / "store", pki) as host, Watch(guest.directory() / "console.log") as watch:
        old = harness.copy_sparse(folder / "data.raw", host.path("data"))
        watch.wait_for(5)
        socket = export_this_moment(guest, folder, full=True)
        before = harness.copy_sparse(old, folder / "before")
        watch.wait_for_more(5)
        with pytest.raises(harness.SendFailed) as failed:
            harness.send(host, pki, uri(socket, "data"), "data", sync="full")
        error = failed.value.error
        assert error["code"] == "nbd.broken" and "Invalid argument" in error["cause"] and error["retry"], error
        harness.cancel(host, pki, "data")
        harness.run("cmp", before, host.path("data"))
        watch.wait_for_more(5)
    assert guest.status() == "running"
