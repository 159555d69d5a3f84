"""Calls of the qemu driver that are killed at each of their commands to QEMU in turn, which then never lands, or lands when the next
driver is there already: the same call, said again, ends right and tells the truth."""
import itertools
import json
import socket
import time

import pytest

import harness
from late_monitor import LATE, NEVER, LateMonitor
from qemu_driver import BLOCK, DESCRIPTION, MIB, Driver, DriverError, alive, content, expect_exact, make_disk

SIZE = 32 * MIB


@pytest.fixture
def late(folder):
    """A VM behind a LateMonitor: (monitor, driver)."""
    make_disk(folder / "os.raw", SIZE)
    with LateMonitor(folder) as monitor, Driver(folder, binary=monitor.binary) as driver:
        monitor.attach(driver)
        yield monitor, driver


class Guest:
    """Writes a block here and there, and knows what should be on the disk."""

    def __init__(self, folder, driver):
        self.path, self.driver, self.disk, self.count = folder / "os.raw", driver, bytearray(SIZE), 0

    def write(self):
        self.count += 1
        offset, pattern = self.count * 7 * BLOCK % SIZE, self.count % 255 + 1
        self.driver.write(offset, BLOCK, pattern)
        self.disk[offset:offset + BLOCK] = bytes([pattern]) * BLOCK


def overlays(driver):
    return list(driver.directory().glob("overlay*"))


@pytest.mark.parametrize("when", [NEVER, LATE])
def test_a_running_vm(folder, late, when):
    monitor, driver = late
    token = driver.create_and_start()
    guest, base = Guest(folder, driver), bytes(SIZE)
    for number in itertools.count():
        killed = set()

        def call(verb, **fields):
            answer, was_killed = monitor.killed_at(number, when, verb, **fields)
            if was_killed:
                killed.add(verb)
            return answer

        for accepted in (False, True):
            guest.write()
            taken = call("snapshot", id=f"{accepted}{number}")
            now = bytes(guest.disk)
            guest.write()
            assert content(guest.path) == now and len(overlays(driver)) == 1
            answer = call("changed-extents", disk="os", since_token=token, id=taken["id"])
            assert answer["extents"] is not None, answer
            changed, told = expect_exact(base, now, answer["extents"])
            assert changed <= told
            call("release-snapshot", id=taken["id"], accepted=accepted)
            assert driver.status() == "running" and not overlays(driver)
        base, token = now, taken["token"]
        if not killed:
            break
    assert number > 5, "a release has more commands than that"
    driver.snapshot("end")
    assert content(guest.path) == guest.disk


@pytest.mark.parametrize("when", [NEVER, LATE])
def test_from_a_start_to_the_last_delta(folder, late, when):
    monitor, driver = late
    guest = Guest(folder, driver)
    driver.call("create", description=DESCRIPTION)
    for number in itertools.count():
        killed = set()

        def call(verb, **fields):
            answer, was_killed = monitor.killed_at(number, when, verb, **fields)
            if was_killed:
                killed.add(verb)
            return answer

        base, token = bytes(guest.disk), call("start")["token"]
        assert token and driver.status() == "running"
        pid = driver.qemu_pid()
        guest.write()
        assert call("shut-down", timeout_s=0, allow_force=True)["forced"]
        assert driver.power() == "off" and alive(pid), "its bitmaps are still asked for"
        taken = call("snapshot", id=f"last{number}")
        answer = call("changed-extents", disk="os", since_token=token, id=taken["id"])
        assert answer["extents"] is not None, answer
        changed, told = expect_exact(base, bytes(guest.disk), answer["extents"])
        assert changed == told and content(guest.path) == guest.disk
        call("release-snapshot", id=taken["id"], accepted=True)
        assert driver.power() == "off"
        harness.wait_until(lambda: not alive(pid), what="the end of a QEMU that has nothing left to tell")
        call("start")
        pid = driver.qemu_pid()
        call("forget-tokens")
        assert driver.call("changed-bytes", since_token=token)["bytes"] is None
        assert driver.status() == "running"
        call("stop")
        assert driver.power() == "off"
        harness.wait_until(lambda: not alive(pid), what="the end of QEMU")
        if not killed:
            break
    assert number > 2


def test_a_guest_that_a_killed_call_stopped_for_good_is_off(late):
    monitor, driver = late
    driver.create_and_start()
    for number in itertools.count():
        monitor.kill_at(number, LATE, "shut-down", timeout_s=0, allow_force=True)
        off = driver.power() == "off"
        assert off == (driver.status() == "paused")
        if off:
            break


def test_a_commit_that_an_earlier_call_completes_meanwhile_is_a_commit(folder, late):
    monitor, driver = late
    driver.create_and_start()
    guest = Guest(folder, driver)
    driver.snapshot("held")
    guest.write()
    job = driver.record()["snapshot"]["disks"][0]["job"]

    def completed():
        driver.qmp({"execute": "job-complete", "arguments": {"id": job}})
        harness.wait_until(lambda: driver.qmp({"execute": "query-jobs"})[0]["return"][0]["status"] == "concluded", what="the commit's end")

    monitor.before["job-complete"] = completed
    driver.release("held")
    assert driver.status() == "running" and not overlays(driver)
    driver.kill_qemu()
    driver.power()
    assert content(guest.path) == guest.disk


def test_a_release_that_is_repeated_after_a_start_leaves_the_new_qemu_alone(folder, late):
    monitor, driver = late
    driver.create_and_start()
    driver.call("shut-down", timeout_s=0, allow_force=True)
    driver.snapshot("last")
    assert monitor.kill_at(1, NEVER, "release-snapshot", id="last", accepted=True) is None
    token = driver.call("start")["token"]
    driver.release("last")
    assert driver.status() == "running" and driver.call("changed-bytes", since_token=token)["bytes"] is not None


def test_a_guest_stays_paused_as_long_as_its_pivot_may_still_come(folder, late):
    monitor, driver = late
    driver.options["timeout_s"] = 1  # within which the commit must make progress
    driver.kill()
    driver.create_and_start()
    guest = Guest(folder, driver)
    driver.snapshot("held")
    guest.write()
    monitor.answer_for["job-complete"] = {}
    with pytest.raises(DriverError, match="does not go on"):
        driver.release("held")
    assert driver.status() == "paused", "else it would write past the overlay that a crash commits"
    del monitor.answer_for["job-complete"]
    harness.wait_until(lambda: driver.status() == "running", what="the guest to go on, although nobody calls")
    driver.release("held")
    driver.kill_qemu()
    driver.power()
    assert content(guest.path) == guest.disk and not overlays(driver)


def test_the_answer_to_a_dead_clients_command_is_not_taken_for_ours(folder):
    make_disk(folder / "os.raw", SIZE)
    with Driver(folder) as driver:
        driver.create_and_start()
        driver.call("shut-down", timeout_s=0, allow_force=True)  # QEMU's `sleep` does not go well with a BIOS at work
        with socket.socket(socket.AF_UNIX) as dead, dead.makefile("rw") as lines:
            dead.connect(str(driver.directory() / "qmp.sock"))
            sleep = 'qemu-io -d /machine/peripheral/bhd0/virtio-backend "sleep 500"'
            for request in ({"execute": "qmp_capabilities"},
                            {"execute": "human-monitor-command", "arguments": {"command-line": sleep}, "id": 1}):
                lines.readline()
                lines.write(json.dumps(request) + "\n")
                lines.flush()
            time.sleep(0.1)  # QEMU is in the middle of it; if not, it drops it, and this test shows less
        assert driver.power() == "off"
