"""What breaks on the way: wrong disks, full disks, dying devices, bad networks, an agent that stops. Each time the error says
what happened, nothing is lost, and the same command brings the disk over once the fault is gone."""
import contextlib
import itertools
import os
import shutil
import signal
import subprocess

import harness
import pytest
from harness import BLOCK, MIB
from proxy import FROM_HOST, TO_HOST, Fault, Proxy
from refusal import expect_error, expect_good_send, need, refused, tree

EXTENT = 4 * MIB


def same(one, other):
    harness.run("cmp", one, other)


# Disks that do not fit ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("sync", ["delta", "full"])
@pytest.mark.parametrize("target_size,code", [(5 * MIB, "target.too_small"), (9 * MIB, "target.size_differs"),
                                              (6 * MIB + 1, "target.size_differs")])
def test_a_target_of_another_size_is_left_alone(host, pki, folder, seed, sync, target_size, code):
    source = harness.make_image(folder / "source.raw", 6 * MIB, "mixed", seed)
    harness.make_image(host.path("disk"), target_size, "mixed", seed + 1)
    before = tree(host.store)
    error = refused(host, pki, source, "disk", code, sync=sync)
    assert str(target_size) in error["cause"] and str(6 * MIB) in error["cause"]
    assert tree(host.store) == before
    host.path("disk").unlink()
    expect_good_send(host, pki, source, "disk", sync=sync)
    same(source, host.path("disk"))


def test_a_vhdx_of_another_size_is_left_alone(host, pki, folder, seed):
    source = harness.make_image(folder / "source.raw", 6 * MIB, "mixed", seed)
    for size, code in ((5 * MIB, "target.too_small"), (8 * MIB, "target.size_differs")):
        harness.run("qemu-img", "create", "-q", "-f", "vhdx", host.path("disk.vhdx"), size)
        before = tree(host.store)
        refused(host, pki, source, "disk.vhdx", code)
        assert tree(host.store) == before


@pytest.mark.parametrize("there,asked", [("raw", "vhdx"), ("raw", "vhdx-fixed"), ("vhdx", "raw"), ("vhdx", "vhdx-fixed")])
def test_a_delta_does_not_change_the_format(host, pki, folder, seed, there, asked):
    source = harness.make_image(folder / "source.raw", 6 * MIB, "mixed", seed)
    harness.send(host, pki, source, "disk", sync="full", format=there)
    harness.change_blocks(source, 0.1, seed)
    before = tree(host.store)
    error = refused(host, pki, source, "disk", "target.format_differs", sync="delta", format=asked)
    assert there in error["cause"] and asked in error["cause"] and "--sync full" in error["fix"]
    assert tree(host.store) == before
    result = harness.send(host, pki, source, "disk", sync="full", format=asked)
    assert result["format"] == asked


def test_a_damaged_vhdx_is_left_alone(host, pki, folder, seed):
    source = harness.make_image(folder / "source.raw", 6 * MIB, "mixed", seed)
    harness.send(host, pki, source, "disk.vhdx", sync="full")
    with open(host.path("disk.vhdx"), "r+b") as file:
        for copy in (64 << 10, 128 << 10):
            file.seek(copy + 100)
            file.write(b"damage")
    before = tree(host.store)
    done = harness.run(*harness.send_words(source, host.url("disk.vhdx"), pki, {}), "--json", check=False)
    error = harness.last_json(done.stdout)["error"]
    assert done.returncode == 1 and error["code"].startswith("vhdx.") and error["cause"] and error["fix"], error
    assert tree(host.store) == before


@pytest.mark.parametrize("what,code", [("missing", "io.not_found"), ("folder", "io.not_a_disk"), ("pipe", "io.not_a_disk"),
                                       ("device", "io.not_a_disk")])
def test_a_source_that_is_no_disk(host, pki, folder, what, code):
    source = folder / "source"
    if what == "folder":
        source.mkdir()
    elif what == "pipe":
        os.mkfifo(source)
    elif what == "device":
        source = "/dev/zero"
    error = refused(host, pki, source, "disk", code)
    assert str(source) in error["cause"] and tree(host.store) == {}


# Full disks --------------------------------------------------------------------------------------------------------

def test_a_full_target_says_so_and_after_enlarging_goes_on(pki, folder, seed):
    source = harness.make_image(folder / "source.raw", 40 * MIB, "dense", seed)
    with harness.small_filesystem(folder, 28 * MIB) as store, harness.Host(store, pki) as host:
        # The limit makes checkpoints fall before the disk is full.
        error = refused(host, pki, source, "disk", "io.no_space", limit="24M", lanes=1)
        assert "disk" in error["cause"]
        assert not host.path("disk").exists()  # nothing takes the half for a whole
        harness.run("mount", "-o", f"remount,size={80 * MIB}", store)
        result = expect_good_send(host, pki, source, "disk")
        assert result["resumed_bytes"] >= EXTENT
        assert result["payload_bytes"] <= 40 * MIB - result["resumed_bytes"]
        same(source, host.path("disk"))


@contextlib.contextmanager
def ext4(folder, size):
    image = folder / "ext4.image"
    with open(image, "wb") as file:
        file.truncate(size)
    harness.run("mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", image)
    try:
        with harness.mounted(["mount", "-o", "loop", image], folder / "ext4") as point:
            yield point
    except harness.CannotMount as reason:
        pytest.skip(f"cannot mount here: {reason}")


def test_no_room_for_the_undo_log_costs_nothing(pki, folder, seed):
    source = harness.make_image(folder / "source.raw", 24 * MIB, "dense", seed)
    old = harness.make_image(folder / "old.raw", 24 * MIB, "dense", seed + 1)
    with ext4(folder, 64 * MIB) as store, harness.Host(store, pki) as host:
        shutil.copy(old, host.path("disk"))
        free = os.statvfs(store).f_bavail * os.statvfs(store).f_frsize
        filler = store / "filler"
        harness.run("fallocate", "-l", free - 8 * MIB, filler)
        refused(host, pki, source, "disk", "io.no_space", staging="undo")
        # The old disk comes back although there is no byte to spare.
        assert harness.cancel(host, pki, "disk")["cancelled"] is True
        same(old, host.path("disk"))
        refused(host, pki, source, "disk", "io.no_space", staging="undo")
        filler.unlink()
        expect_good_send(host, pki, source, "disk", staging="undo")
        same(source, host.path("disk"))
        assert sorted(path.name for path in store.iterdir() if path.name != "lost+found") == [".disk.digests", ".disk.last", "disk"]


# Devices that fail -------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def failing_file(folder, image, *filters):
    """The image as a file that nbdkit serves through FUSE with these filters and parameters; reaches io_uring, too."""
    need("nbdfuse", "nbdkit", "fusermount3")
    point = folder / "nbd"
    point.touch()
    process = subprocess.Popen(["nbdfuse", str(point), "--command", "nbdkit", "-s", *filters], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        def served():
            assert process.poll() is None, "nbdfuse cannot serve here"
            return os.path.getsize(point) == os.path.getsize(image)
        harness.wait_until(served, what="the FUSE mount")
        yield point
    finally:
        harness.run("fusermount3", "-u", "-z", point, check=False)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.parametrize("sync", ["full", "delta"])
def test_read_errors_at_the_source_name_the_place_and_pass(host, pki, folder, seed, sync):
    image = harness.make_image(folder / "source.raw", 24 * MIB, "dense", seed)
    trigger = folder / "trigger"
    if sync == "delta":
        harness.make_image(host.path("disk"), 24 * MIB, "mixed", seed + 1)
    old = tree(host.store)
    with failing_file(folder, image, "--filter=error", "file", image, "error=EIO", "error-pread-rate=100%",
                      f"error-file={trigger}") as source:
        trigger.touch()
        error = refused(host, pki, source, "disk", ("source.read_failed", "io.device_error"), sync=sync)
        assert str(source) in error["cause"] and " at " in error["cause"]
        trigger.unlink()
        if sync == "delta":
            assert harness.cancel(host, pki, "disk")["cancelled"] in (True, False)
            assert tree(host.store) == old
        expect_good_send(host, pki, source, "disk", sync=sync)
        same(image, host.path("disk"))


def test_read_errors_in_the_middle_keep_what_was_done(host, pki, folder, seed):
    image = harness.make_image(folder / "source.raw", 48 * MIB, "dense", seed)
    trigger = folder / "trigger"
    with failing_file(folder, image, "--filter=error", "file", image, "error=EIO", "error-pread-rate=100%",
                      f"error-file={trigger}") as source:
        with harness.sending(host, pki, source, "disk", sync="full", limit="8M", lanes=1) as sender:
            wait_for_acknowledged(host, "disk")
            trigger.touch()
            out, err = sender.communicate(timeout=60)
            assert sender.returncode == 1, out + err
            error = harness.last_json(out)["error"]
            assert error["code"] == "source.read_failed" and " at " in error["cause"], error
        trigger.unlink()
        result = expect_good_send(host, pki, source, "disk", sync="full")
        assert result["resumed_bytes"] >= EXTENT
        same(image, host.path("disk"))


def wait_for_acknowledged(host, disk, extents=1):
    """Waits until an unfinished send has shipped blocks of this many extents durably, and says of how many. docs/journal_format.md: the digest index has a
    table of {state, shipped} bytes at 4096."""
    index = host.path(f".{disk}.backhaul/index")

    def shipped():
        with contextlib.suppress(OSError), open(index, "rb") as file:
            file.seek(4096)
            count = sum(1 for blocks in file.read(4096)[1::2] if blocks)
            return count if count >= extents else None

    return harness.wait_until(shipped, what="an acknowledged extent")


@contextlib.contextmanager
def loop_device(image):
    done = harness.run("losetup", "--find", "--show", image, check=False)
    if done.returncode != 0:
        pytest.skip(f"no loop devices here: {done.stderr}")
    device = done.stdout.strip()
    try:
        yield device
    finally:
        harness.run("losetup", "-d", device, check=False)


def put_device(device, path):
    """A second node of the device, inside the store: a symbolic link would leave it."""
    facts = os.stat(device)
    os.mknod(path, facts.st_mode, facts.st_rdev)


def test_write_errors_at_the_target_device_keep_the_way_back(host, pki, folder, seed):
    source = harness.make_image(folder / "source.raw", 24 * MIB, "dense", seed)
    image = harness.make_image(folder / "target.raw", 24 * MIB, "dense", seed + 1)
    old = shutil.copy(image, folder / "old.raw")
    trigger = folder / "trigger"
    with failing_file(folder, image, "--filter=error", "file", image, "error=EIO", "error-pwrite-rate=100%",
                      f"error-file={trigger}") as served, loop_device(served) as device:
        put_device(device, host.path("disk"))
        trigger.touch()
        error = refused(host, pki, source, "disk", ("io.device_error", "io.sync_failed"))
        assert "disk" in error["cause"]
        trigger.unlink()
        host.stop()  # an agent whose sync failed once does not trust the device again before it is restarted
        host.start()
        assert harness.cancel(host, pki, "disk")["cancelled"] is True
        same(old, device)
        expect_good_send(host, pki, source, "disk")
        same(source, device)
        host.stop()
        host.path("disk").unlink()
        host.start()


def test_a_slow_target_device_is_waited_for(host, pki, folder, seed):
    source = harness.make_image(folder / "source.raw", 8 * MIB, "dense", seed)
    image = harness.make_image(folder / "target.raw", 8 * MIB, "empty", seed)
    with failing_file(folder, image, "--filter=delay", "file", image, "delay-write=20ms", "delay-read=5ms") as served, \
            loop_device(served) as device:
        put_device(device, host.path("disk"))
        result = expect_good_send(host, pki, source, "disk", lanes=4)
        assert result["retries"] == 0
        same(source, device)
        host.path("disk").unlink()


# Bad networks ------------------------------------------------------------------------------------------------------

class Every:
    """A rule: the first `times` connections that get as far as `at` bytes in this way have the fault there."""

    def __init__(self, kind, way, at, times=1, skip=0):
        self.kind, self.way, self.at, self.times, self.skip = kind, way, at, times, skip

    def __call__(self, number, way):
        if way != self.way or number < self.skip or number >= self.skip + self.times:
            return None
        return Fault(**{self.kind: self.at})


@pytest.fixture
def changed_disk(host, folder, seed):
    """A source of 24 MiB and, at the host agent, another disk of that size; gives (source, copy of the old disk)."""
    source = harness.make_image(folder / "source.raw", 24 * MIB, "dense", seed)
    harness.make_image(host.path("disk"), 24 * MIB, "dense", seed + 1)
    return source, shutil.copy(host.path("disk"), folder / "old.raw")


# Connection 0 is the control stream, 1 and 2 are the lanes. The offsets lie in the handshake, in a record's header or tag and in
# the midst of content.
FLIPS = [(number, way, at) for number in (0, 1) for way, offsets in
         ((TO_HOST, (20, 200, 700, 1100)), (FROM_HOST, (7, 150, 900))) for at in offsets]
FLIPS += [(1, TO_HOST, 300_000), (2, TO_HOST, 1_000_001), (1, FROM_HOST, 3_000), (2, FROM_HOST, 3_500)]


def test_a_flipped_bit_is_noticed_and_what_it_hit_is_sent_again(host, pki, folder, changed_disk):
    source, _ = changed_disk
    flipped, retried = 0, 0
    for number, way, at in FLIPS:
        harness.change_blocks(source, 0.5, f"{number}{way}{at}")
        with Proxy(host.port, Every("flip_at", way, at, skip=number)) as proxy:
            result = harness.send(proxy, pki, source, "disk", lanes=2)
            assert proxy.flips == 0 or result["retries"] >= 1, f"the flip in connection {number} {way} at {at} went unnoticed"
            flipped, retried = flipped + proxy.flips, retried + result["retries"]
        assert result["root_digest_source"] == result["root_digest_target"]
        same(source, host.path("disk"))
    assert flipped >= len(FLIPS) * 3 // 4 and retried >= flipped


def test_a_line_that_flips_for_ever_gives_a_clear_error(host, pki, changed_disk):
    source, old = changed_disk
    with Proxy(host.port, lambda number, way: Fault(flip_at=20_000) if way == TO_HOST else None) as proxy:
        error = refused(proxy, pki, source, "disk", ("transport.tls_record_damaged", "transport.lost", "link.lost"), timeout=120)
        assert error["retry"] is True and proxy.flips >= 3
    assert harness.cancel(host, pki, "disk")["cancelled"] is True
    same(old, host.path("disk"))
    expect_good_send(host, pki, source, "disk")
    same(source, host.path("disk"))


@pytest.mark.parametrize("way", [TO_HOST, FROM_HOST])
def test_cut_connections_are_made_again(host, pki, changed_disk, way):
    source, _ = changed_disk
    offsets = {TO_HOST: (0, 100, 5_000, 2_000_000, 9_000_000), FROM_HOST: (1, 1_000, 2_500, 5_000)}[way]
    counter = itertools.count()
    # Every third connection is cut, each time at another place.
    with Proxy(host.port, lambda number, its: Fault(cut_at=offsets[next(counter) % len(offsets)])
               if its == way and number % 3 == 1 and number < 15 else None) as proxy:
        result = harness.send(proxy, pki, source, "disk", lanes=2, sync="delta")
        assert proxy.cuts >= 1 and result["retries"] >= 1
    assert result["root_digest_source"] == result["root_digest_target"]
    same(source, host.path("disk"))


def test_what_was_acknowledged_before_a_cut_is_not_sent_again(host, pki, changed_disk):
    source, _ = changed_disk
    with Proxy(host.port) as proxy:
        with harness.sending(proxy, pki, source, "disk", lanes=2, limit="5M", compress="off") as sender:
            durable = wait_for_acknowledged(host, "disk", 2) * EXTENT
            proxy.cut_all()
            out, err = sender.communicate(timeout=90)
        assert sender.returncode == 0, out + err
    result = harness.last_json(out)
    assert result["retries"] >= 1 and result["root_digest_source"] == result["root_digest_target"]
    # At most everything before the cut, and after it all but what was durable, whether or not its acknowledgement got through.
    assert result["payload_bytes"] <= 2 * 24 * MIB - durable
    same(source, host.path("disk"))


def test_a_swallowed_connection_attempt_is_given_up_and_made_again(host, pki, changed_disk):
    """The first connection is accepted and then nothing: the sender's own patience must end it."""
    source, _ = changed_disk
    with Proxy(host.port, lambda number, way: Fault(swallow_at=0) if number == 0 else None) as proxy:
        result = harness.send(proxy, pki, source, "disk", timeout=120)
        assert result["retries"] >= 1
    same(source, host.path("disk"))


@pytest.mark.parametrize("delay", [0.05, 0.2])
def test_a_long_line_costs_round_trips_per_window_not_per_extent(host, pki, folder, seed, delay):
    # 256 extents with one block each; one round trip per extent would be 256, and no timing of this test comes near it.
    extents = 256
    source = folder / "source.raw"
    with open(source, "wb") as image:
        image.truncate(extents * EXTENT)
        for extent in range(extents):
            image.seek(extent * EXTENT + (extent % 128) * BLOCK)
            image.write(os.urandom(BLOCK))
    harness.copy_sparse(source, host.path("disk"))
    with open(source, "r+b") as image:
        for extent in range(extents):
            image.seek(extent * EXTENT + (extent % 128) * BLOCK)
            image.write(os.urandom(BLOCK))
    with Proxy(host.port, delay=delay) as proxy:
        result = harness.send(proxy, pki, source, "disk", lanes=2)
        assert result["blocks_changed"] == extents and result["retries"] == 0
        print(f"{proxy.round_trips} round trips of {2 * delay} s, {result['seconds']} s")
        assert 5 <= proxy.round_trips <= extents // 3
    assert result["root_digest_source"] == result["root_digest_target"]


# An agent that stops -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("end", ["stop", "kill"])
def test_the_agent_stops_in_mid_transfer_and_the_sender_waits_for_it(host, pki, changed_disk, end):
    source, _ = changed_disk
    with harness.sending(host, pki, source, "disk", lanes=2, limit="5M") as sender:
        wait_for_acknowledged(host, "disk")
        assert sender.poll() is None
        if end == "stop":
            assert host.stop() == 0
        else:
            host.kill()
        assert not host.path("disk").exists()
        host.start()
        out, err = sender.communicate(timeout=90)
    assert sender.returncode == 0, out + err
    result = harness.last_json(out)
    assert result["retries"] >= 1 and result["root_digest_source"] == result["root_digest_target"]
    same(source, host.path("disk"))


def test_the_sender_stops_at_a_signal_and_the_same_command_goes_on(host, pki, changed_disk):
    source, old = changed_disk
    with harness.sending(host, pki, source, "disk", limit="4M") as sender:
        wait_for_acknowledged(host, "disk")
        sender.send_signal(signal.SIGINT)
        out, err = sender.communicate(timeout=30)
        assert sender.returncode == 1 and harness.last_json(out)["error"]["code"] == "base.cancelled", out + err
    result = expect_good_send(host, pki, source, "disk")
    assert result["resumed_bytes"] >= EXTENT
    same(source, host.path("disk"))


def test_nobody_listens(pki, folder, seed):
    source = harness.make_image(folder / "source.raw", MIB, "mixed", seed)

    class Nobody:
        @staticmethod
        def url(disk):
            return f"backhaul://127.0.0.1:9/{disk}"

    done = harness.run(harness.program(), "cancel", Nobody.url("disk"), "--tls", pki.appliance, "--json", check=False)
    error = expect_error(done, "link.refused")
    assert "127.0.0.1:9" in error["cause"] and error["retry"] is True


def test_two_senders_of_one_disk_do_not_mix(host, pki, folder, seed, changed_disk):
    source, _ = changed_disk
    other = harness.make_image(folder / "other.raw", 24 * MIB, "dense", seed + 2)
    with harness.sending(host, pki, source, "disk", limit="4M") as first:
        wait_for_acknowledged(host, "disk")
        words = harness.send_words(other, host.url("disk"), pki, {})
        second = subprocess.Popen(words + ["--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        outcomes = [first.communicate(timeout=120), second.communicate(timeout=120)]
    finished = [image for image, process in ((source, first), (other, second)) if process.returncode == 0]
    assert finished, outcomes
    target = host.path("disk").read_bytes()
    assert any(target == image.read_bytes() for image in finished)
