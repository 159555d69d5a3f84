"""The qemu driver against a real QEMU. Most VMs here have no operating system: a test writes through their devices, and
knows each byte that should be there."""
import os
import pathlib
import random

import pytest

import harness
from qemu_driver import BLOCK, MIB, Driver, DriverError, alive, content, expect_exact, make_disk

SIZE = 32 * MIB
UNIT = 64 << 10  # in which QEMU commits an overlay: what was written to one counts as changed in these


@pytest.mark.parametrize("form", ["raw", "vhdx"])
def test_a_snapshot_stands_still_and_the_extents_are_exact(folder, seed, form):
    disks = [make_disk(folder / f"{name}.{form}", SIZE).name for name in ("os", "data")]
    rng = random.Random(f"{seed}/{form}")

    def scribble(count):
        for _ in range(count):
            driver.write(rng.randrange(SIZE // 4096) * 4096, 4096, rng.randrange(1, 255), disk=rng.randrange(2))

    with Driver(folder, disks) as driver:
        token = driver.create_and_start()
        scribble(10)
        assert driver.call("changed-bytes", since_token=token)["bytes"] >= BLOCK
        base = [bytes(SIZE), bytes(SIZE)]
        for number in range(3):
            taken = driver.snapshot(f"s{number}")
            assert driver.snapshot(f"s{number}") == taken, "the same id gives the same snapshot"
            assert [disk["path"] for disk in taken["disks"]] == [str(folder / disk) for disk in disks]
            files = [pathlib.Path(disk["path"]).read_bytes() for disk in taken["disks"]]
            scribble(10)  # while it is held: into the overlays
            assert files == [pathlib.Path(disk["path"]).read_bytes() for disk in taken["disks"]], "a file has changed"
            now = [content(folder / disk) for disk in disks]
            for disk in range(2):
                changed, told = expect_exact(base[disk], now[disk], driver.changed(token, f"s{number}", disks[disk].split(".")[0]))
                assert changed <= told
            driver.release(f"s{number}")
            driver.release(f"s{number}")
            assert not list(driver.directory().glob("overlay*"))
            base, token = now, taken["token"]
        # The last delta, after the shutdown; this "guest" must be forced.
        scribble(5)
        assert driver.call("shut-down", timeout_s=0, allow_force=True)["forced"]
        assert driver.power() == "off"
        driver.snapshot("last")
        now = [content(folder / disk) for disk in disks]
        for disk in range(2):
            expect_exact(base[disk], now[disk], driver.changed(token, "last", disks[disk].split(".")[0]))
        driver.release("last")
        assert driver.power() == "off"
    for disk in disks:
        if form == "vhdx":
            harness.qemu_check(folder / disk)


def test_a_snapshot_that_is_not_accepted_leaves_its_changes_to_the_older_token(folder):
    make_disk(folder / "os.raw", SIZE)
    with Driver(folder) as driver:
        driver.create_and_start()
        first = driver.snapshot("first")["token"]
        driver.release("first")
        driver.write(1 * MIB, UNIT, 1)
        void = driver.snapshot("void")["token"]
        driver.write(2 * MIB, UNIT, 2)
        driver.release("void", accepted=False)
        driver.write(3 * MIB, UNIT, 3)
        driver.snapshot("next")
        assert driver.changed(first, "next") == [[number * MIB, UNIT] for number in (1, 2, 3)]
        assert "no bitmap" in driver.changed(void, "next")
        assert "not held" in driver.changed(first, "void")


def test_an_unaccepted_snapshot_that_nobody_released_makes_room_for_the_next(folder):
    make_disk(folder / "os.raw", SIZE)
    with Driver(folder) as driver:
        token = driver.create_and_start()
        driver.write(0, UNIT, 1)
        driver.snapshot("lost")
        driver.write(MIB, UNIT, 2)
        driver.snapshot("next")
        assert driver.changed(token, "next") == [[0, UNIT], [MIB, UNIT]]
        assert len(list(driver.directory().glob("overlay*"))) == 1


def test_a_daemon_killed_in_any_call_is_repeated_and_ends_right(folder, seed):
    make_disk(folder / "os.raw", SIZE)
    rng = random.Random(seed)
    with Driver(folder) as driver:
        token = driver.create_and_start()
        pid = driver.qemu_pid()
        expected = bytearray(SIZE)

        def write(number, pattern):
            driver.write(number * MIB, BLOCK, pattern)
            expected[number * MIB:number * MIB + BLOCK] = bytes([pattern]) * BLOCK

        def killed(verb, **fields):
            # Of each call some are killed at once, some late, and then it is said again.
            for _ in range(rng.randrange(1, 4)):
                driver.ask(verb, **fields)
                with pytest.raises(AssertionError):
                    harness.wait_until(lambda: False, timeout=rng.random() * 0.15)
                driver.kill()
            return driver.call(verb, **fields)

        for number in range(6):
            write(number, number + 1)
            taken = killed("snapshot", id=f"s{number}")
            before = bytes(expected)
            write(16 + number, number + 1)
            assert content(folder / "os.raw") == before
            extents = killed("changed-extents", disk="os", since_token=token, id=f"s{number}")["extents"]
            assert [number * MIB, BLOCK] in extents and [(16 + number) * MIB, BLOCK] not in extents
            accepted = number % 2 == 0
            killed("release-snapshot", id=f"s{number}", accepted=accepted)
            assert driver.status() == "running", "the guest goes on"
            assert not list(driver.directory().glob("overlay*"))
            if accepted:
                token = taken["token"]
            else:
                assert driver.call("changed-bytes", since_token=token)["bytes"] >= 3 * BLOCK
        driver.snapshot("end")
        assert content(folder / "os.raw") == expected
        assert driver.qemu_pid() == pid and alive(pid)


def test_a_killed_qemu_loses_nothing_and_its_tracker_is_not_believed(folder):
    make_disk(folder / "os.vhdx", SIZE)
    with Driver(folder, ["os.vhdx"]) as driver:
        driver.create_and_start()
        driver.write(0, BLOCK, 1)
        first = driver.snapshot("first")["token"]
        frozen = content(folder / "os.vhdx")
        driver.write(MIB, BLOCK, 2)  # only in the overlay
        driver.io("flush")
        driver.kill_qemu()
        assert driver.power() == "off"
        assert content(folder / "os.vhdx") == frozen, "what is being read stays"
        assert isinstance(driver.changed(first, "first"), str)
        driver.release("first", accepted=False)
        now = content(folder / "os.vhdx")
        assert now[MIB:MIB + BLOCK] == b"\2" * BLOCK, "the overlay's writes are in the disk"
        harness.qemu_check(folder / "os.vhdx")
        off = driver.snapshot("off")
        assert off["token"] == "" and isinstance(driver.changed(first, "off"), str)
        assert driver.call("start")["token"] != ""
        with pytest.raises(DriverError) as refused:
            driver.release("off")
        assert "started" in refused.value.cause
        driver.release("off", accepted=False)
        driver.snapshot("second")
        assert isinstance(driver.changed(first, "second"), str)


def test_a_start_after_a_crash_takes_the_overlay_first(folder):
    make_disk(folder / "os.raw", SIZE)
    with Driver(folder) as driver:
        driver.create_and_start()
        driver.snapshot("held")
        driver.write(0, BLOCK, 7)
        driver.io("flush")
        driver.kill_qemu()
        driver.call("start")
        assert content(folder / "os.raw")[:BLOCK] == b"\7" * BLOCK
        with pytest.raises(DriverError):
            driver.snapshot("held")
        driver.release("held", accepted=False)
        assert driver.status() == "running"


def test_a_snapshot_is_given_up_before_its_overlays_fill_their_file_system(folder):
    make_disk(folder / "os.raw", SIZE)
    try:
        with harness.small_filesystem(folder, 8 * MIB) as small, Driver(folder, state=str(small / "vms")) as driver:
            token = driver.create_and_start()
            driver.snapshot("full")
            driver.write(0, MIB, 5)
            (small / "fill").write_bytes(bytes(os.statvfs(small).f_bavail * os.statvfs(small).f_bsize - MIB // 2))
            harness.wait_until(lambda: not list(driver.directory().glob("overlay*")), what="the overlay's end")
            assert driver.status() == "running"
            with pytest.raises(DriverError, match="free for its overlays"):
                driver.snapshot("full")
            with pytest.raises(DriverError, match="free for its overlays"):
                driver.release("full")
            driver.release("full", accepted=False)
            assert content(folder / "os.raw")[:MIB] == b"\5" * MIB
            with open(small / "fill", "ab") as fill:
                fill.write(bytes(os.statvfs(small).f_bavail * os.statvfs(small).f_bsize - MIB // 2))
            with pytest.raises(DriverError, match="a snapshot needs"):
                driver.snapshot("again")
            (small / "fill").unlink()
            driver.snapshot("again")
            assert driver.changed(token, "again") == [[0, MIB]]
            driver.release("again")
    except harness.CannotMount as reason:
        pytest.skip(f"cannot mount here: {reason}")


def test_what_it_cannot_do_is_refused_with_a_reason(folder):
    make_disk(folder / "os.raw", SIZE)
    with Driver(folder) as driver:
        with pytest.raises(DriverError, match="create it first"):
            driver.call("start")
        with pytest.raises(DriverError, match="network 'LAN'"):
            driver.call("create", description={"name": "web", "nics": [{"name": "n", "network": "LAN", "mac": ""}]})
        with pytest.raises(DriverError, match="lies in no directory"):
            driver.call("create", description={"name": "web"},
                        disks=[{"name": "os", "path": "../../etc/passwd", "format": "raw"}])
        with pytest.raises(DriverError, match="`attach`"):
            driver.call("describe", settings={"qmp": "/run/other.sock"})
        checks = {check["name"]: check for check in driver.call("preflight", description={
            "name": "web", "firmware": "uefi", "secure_boot": True, "memory_mib": 1 << 30,
            "nics": [{"name": "n", "network": "LAN", "mac": ""}]})["checks"]}
        for name in ("network:LAN", "secure-boot", "memory"):
            assert checks[name]["level"] == "failed" and checks[name]["fix"], name
        assert checks["firmware"]["level"] == "ok"
        assert driver.power() == "absent"
        assert not driver.directory().exists(), "preflight and refusals change nothing"


def test_a_qemu_that_somebody_else_runs_is_attached_to(folder):
    make_disk(folder / "os.raw", SIZE)
    make_disk(folder / "other.qcow2", SIZE)
    with Driver(folder, settings={"qmp": str(folder / "own.sock")}, attach=[str(folder)]) as driver:
        assert driver.power() == "off", "nobody has its disk open"
        harness.run("qemu-system-x86_64", "-accel", "tcg", "-M", "pc", "-m", "64", "-nodefaults", "-display", "none", "-daemonize",
                    "-pidfile", folder / "own.pid", "-qmp", f"unix:{folder}/own.sock,server=on,wait=off",
                    "-qmp", f"unix:{driver.monitor()},server=on,wait=off", "-no-shutdown",
                    "-drive", f"file={folder}/os.raw,format=raw,if=none,id=d0",
                    "-device", "virtio-blk-pci,drive=d0,id=bhd0",
                    "-drive", f"file={folder}/other.qcow2,format=qcow2,if=virtio")
        try:
            assert driver.power() == "running"
            first = driver.snapshot("first")["token"]
            driver.write(MIB, UNIT, 9)
            driver.release("first")
            driver.snapshot("second")
            assert driver.changed(first, "second") == [[MIB, UNIT]]
            driver.release("second")
            with pytest.raises(DriverError, match="not supported"):
                driver.call("snapshot", id="third", disks=[{"name": "x", "path": "other.qcow2", "format": "raw"}])
            assert driver.status() == "running"
            driver.call("stop")
            assert driver.power() == "off"
        finally:
            if (folder / "own.pid").exists():
                os.kill(int((folder / "own.pid").read_text()), 9)
