"""The qemu driver with a real guest that writes records and says which ones it was told are written (tests/guest/guest_records.py)."""
import os
import time

import guest_records
import pytest

import harness
from qemu_driver import MIB, Driver, DriverError, make_disk

GUEST = {"memory_mib": 256}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Builds each kind of guest once; give(folder, ...) makes a copy."""
    cache = tmp_path_factory.mktemp("records")

    def give(folder, firmware="bios", deaf=False):
        first, second = cache / f"{firmware}-{deaf}.raw", cache / "second.raw"
        if not first.exists():
            guest_records.build(first, second, firmware=firmware, deaf=deaf)
        harness.copy_sparse(first, folder / "os.raw")
        harness.copy_sparse(second, folder / "data.raw")
    return give


class Guest(Driver):
    def console(self):
        return (self.directory() / "console.log").read_text(errors="replace")

    def acknowledged(self):
        """The number of the last acknowledged record."""
        return max(guest_records.acknowledged(self.console()), default=-1)

    def wait_for(self, number, timeout=90):
        harness.wait_until(lambda: self.acknowledged() >= number, timeout, f"record {number}")
        return self.acknowledged()

    def wait_for_more(self, count=5):
        return self.wait_for(self.acknowledged() + count)


def fill_up(folder):
    handle = os.open(folder / "fill", os.O_WRONLY | os.O_CREAT)
    try:
        with pytest.raises(OSError):
            while os.write(handle, bytes(4096)):
                pass
    finally:
        os.close(handle)


def copies(taken, folder, name):
    """The files of a snapshot, as they are now."""
    return [harness.copy_sparse(disk["path"], folder / f"{name}-{disk['name']}.raw") for disk in taken["disks"]]


def test_a_snapshot_of_a_writing_guest_holds_every_acknowledged_record(folder, images):
    images(folder)
    with Guest(folder, ["os.raw", "data.raw"]) as guest:
        token = guest.create_and_start(**GUEST)
        guest.wait_for(5)
        for number in range(3):
            before = guest.acknowledged()
            taken = guest.snapshot(f"s{number}")
            after = guest.wait_for_more()
            first, second = copies(taken, folder, "copy")
            count = guest_records.expect_records(first, before, second)
            assert count <= after + 1
            assert isinstance(guest.changed(token, f"s{number}"), list)
            guest.release(f"s{number}")
            guest.wait_for_more()
            token = taken["token"]
        old = first.read_bytes()
        asked = time.monotonic()
        down = guest.call("shut-down", timeout_s=60, allow_force=False)
        assert not down["forced"]
        assert down["last_write_age_ms"] <= (time.monotonic() - asked) * 1000, "it unmounted after the button was pressed"
        assert guest_records.said(guest.console())[-1] == "bye"
        assert guest.power() == "off"
        taken = guest.snapshot("final")
        patched = bytearray(old)
        now = (folder / "os.raw").read_bytes()
        for offset, length in guest.changed(token, "final"):
            patched[offset:offset + length] = now[offset:offset + length]
        assert patched == now, "base and last extents are the disk"
        guest.release("final")
        guest_records.expect_records(folder / "os.raw", guest.acknowledged(), folder / "data.raw")


def test_the_first_write_of_a_guest_is_seen_and_a_daemon_that_was_away_says_how_unsure_it_is(folder, images):
    images(folder)
    with Guest(folder, ["os.raw", "data.raw"]) as guest:
        guest.create_and_start(**GUEST)

        def first_write():
            answer = guest.call("first-write", wait_ms=500)
            return answer if answer["age_ms"] is not None else None
        harness.wait_until(first_write, 90, "the first write")
        seen = time.monotonic()
        guest.wait_for(3)
        guest.kill()
        known = first_write()
        assert known["age_ms"] + known["unsure_ms"] >= (time.monotonic() - seen) * 1000 - 100, "a new process was not there"
        guest.kill_qemu()
        assert guest.call("first-write", wait_ms=500) == {}, "nobody can tell any more"
        guest.call("start")
        harness.wait_until(first_write, 90, "the first write of the second start")
        assert guest.power() == "running"


def test_a_guest_that_ignores_the_button_is_left_running_or_forced_when_allowed(folder, images):
    images(folder, deaf=True)
    with Guest(folder, ["os.raw"]) as guest:
        guest.create_and_start(**GUEST)
        guest.wait_for(3)
        with pytest.raises(DriverError) as refused:
            guest.call("shut-down", timeout_s=2, allow_force=False)
        assert refused.value.code == "control.shutdown_refused"
        assert guest.power() == "running"
        guest.wait_for_more(3)
        assert guest.call("shut-down", timeout_s=1, allow_force=True)["forced"]
        assert guest.power() == "off"
        guest.snapshot("final")
        guest_records.expect_records(folder / "os.raw", guest.acknowledged())
        guest.release("final")
        # And again: what was forced off starts and goes on.
        before = guest.acknowledged()
        guest.call("start")
        guest.wait_for(before + 3)
        assert guest_records.starts(guest.console())[0] > before


def test_a_guest_whose_overlay_is_full_is_paused_and_goes_on(folder, images):
    images(folder)
    try:
        with harness.small_filesystem(folder, 8 * MIB) as small, \
                Guest(folder, ["os.raw", "data.raw"], state=str(small / "vms"), reserve_bytes=0) as guest:
            guest.create_and_start(**GUEST)
            guest.wait_for(3)
            guest.snapshot("full")
            # Nobody watches while it fills up: the guest has to wait for the daemon.
            guest.end()
            fill_up(small)
            harness.wait_until(lambda: guest.status() == "io-error", 60, "the pause")
            stuck = guest.acknowledged()
            (small / "fill").unlink()  # the console's log lies there too
            guest.__enter__()
            guest.wait_for(stuck + 5)
            assert guest.status() == "running"
            with pytest.raises(DriverError, match="paused the guest"):
                guest.release("full")
            guest.release("full", accepted=False)
            guest.call("shut-down", timeout_s=60, allow_force=False)
            guest_records.expect_records(folder / "os.raw", guest.acknowledged(), folder / "data.raw")
    except harness.CannotMount as reason:
        pytest.skip(f"cannot mount here: {reason}")


def test_a_delivered_vhdx_boots_by_uefi_and_is_tracked_from_its_first_moment(folder, images, pki):
    images(folder, firmware="uefi")
    store = folder / "home"
    store.mkdir()
    with harness.Host(store, pki) as host:
        for disk in ("os", "data"):
            harness.send(host, pki, folder / f"{disk}.raw", f"{disk}.vhdx", format="vhdx")
    with Guest(store, ["os.vhdx", "data.vhdx"]) as guest:
        token = guest.create_and_start(firmware="uefi", **GUEST)
        assert guest.call("health", settings={"health": {"console": "BHREC 1"}})["healthy"] is False
        guest.wait_for(5)
        assert guest.call("health", settings={"health": {"console": "BHREC 1"}})["healthy"] is True
        guest.call("shut-down", timeout_s=60, allow_force=False)
        guest.snapshot("final")
        for disk in ("os", "data"):
            harness.run("qemu-img", "convert", "-U", "-f", "vhdx", "-O", "raw", store / f"{disk}.vhdx", folder / f"{disk}.now")
            patched, now = bytearray((folder / f"{disk}.raw").read_bytes()), (folder / f"{disk}.now").read_bytes()
            extents = guest.changed(token, "final", disk)
            assert extents
            for offset, length in extents:
                patched[offset:offset + length] = now[offset:offset + length]
            assert patched == now, "every write since the first instruction is tracked"
        guest.release("final")
        guest_records.expect_records(folder / "os.now", guest.acknowledged(), folder / "data.now")
        for disk in ("os", "data"):
            harness.qemu_check(store / f"{disk}.vhdx")
