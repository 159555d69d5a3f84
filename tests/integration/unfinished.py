"""What tests of unfinished transfers share: scenarios (which disk, which staging, how wide), random moments, and what
the store's files say about a transfer that was cut off. The files' offsets are those of docs/journal_format.md."""
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import random
import shutil
import struct
import time

import harness
import pytest
from harness import BLOCK, MIB

EXTENT = 4 * MIB
DISK = "vm/disk"
SIZE = 40 * MIB + 512 * 5
LIMIT = "24M"
SOAK = int(os.environ.get("BACKHAUL_SOAK", "1"))  # multiplies the number of moments
PREPARING, TRANSFERRING, FINISHING, CANCELLING = 1, 2, 3, 4


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One kind of transfer. `old`: there is an old disk at the target; `filesystem`: where the store lies."""
    sync: str
    disk_format: str
    staging: str = "auto"
    old: bool = True
    filesystem: str = "plain"
    lanes: int = 2

    def __str__(self):
        words = [self.sync, self.disk_format, self.staging, self.filesystem, f"{self.lanes}lanes"]
        return "-".join(words + ([] if self.old else ["new"]))

    @property
    def qemu_format(self):
        return "raw" if self.disk_format == "raw" else "vhdx"

    def options(self, **more):
        options = {"sync": self.sync, "format": self.disk_format, "staging": self.staging, "lanes": self.lanes,
                   "compress": "off"}
        return {**options, **more}


@dataclasses.dataclass
class Disks:
    """The source and the old disk of every format, made once; `changed` and `data` are payload bytes of a whole run."""
    source: pathlib.Path
    old: dict
    old_sha256: dict
    changed: int
    data: int

    def payload(self, scenario):
        return self.data if scenario.sync == "full" else self.changed


def make_disks(folder, seed):
    older = harness.make_image(folder / "older.raw", SIZE, "mixed", seed)
    source = harness.copy_sparse(older, folder / "source.raw")
    harness.change_blocks(source, 0.6, seed)
    old = {"raw": older}
    for disk_format, subformat in (("vhdx", "dynamic"), ("vhdx-fixed", "fixed")):
        old[disk_format] = folder / f"older.{disk_format}"
        harness.run("qemu-img", "convert", "-f", "raw", "-O", "vhdx", "-o", f"subformat={subformat},block_size=4M", older,
                    old[disk_format])
    changed = data = 0
    with open(older, "rb") as one, open(source, "rb") as other:
        while True:
            before, now = one.read(BLOCK), other.read(BLOCK)
            if not now:
                break
            if now.count(0) == len(now):
                continue
            data += len(now)
            changed += len(now) if now != before else 0
    return Disks(source, old, {key: sha256(path) for key, path in old.items()}, changed, data)


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def store_on(scenario, folder):
    """An empty store on the scenario's file system."""
    if scenario.filesystem == "plain":
        with harness.temporary_folder(folder) as path:
            yield path
    else:
        with harness.reflink_filesystem(folder, scenario.filesystem) as path:
            yield path


def session_directory(store):
    path = pathlib.Path(store) / DISK
    return path.parent / f".{path.name}.backhaul"


def put_old_disk(store, scenario, disks):
    """The store as it is before the transfer: nothing but the old disk."""
    parent = (pathlib.Path(store) / DISK).parent
    shutil.rmtree(parent, ignore_errors=True)
    parent.mkdir(parents=True)
    if scenario.old:
        harness.copy_sparse(disks.old[scenario.disk_format], pathlib.Path(store) / DISK)


# What the store's files say -----------------------------------------------------------------------------------------

def session_state(store):
    """The state of the last record of the session's journal; None without one. Reads like the host agent does."""
    try:
        journal = (session_directory(store) / "journal").read_bytes()
    except OSError:
        return None
    for at in range(len(journal) // 128 - 1, -1, -1):
        if journal[at * 128:at * 128 + 8] == b"BHSESSN1":
            return journal[at * 128 + 40]
    return None


def recorded_bytes(store):
    """Content that the unfinished transfer has shipped and recorded as durable: what must never be sent again."""
    try:
        index = (session_directory(store) / "index").read_bytes()
    except OSError:
        return 0
    size, extents = struct.unpack_from("<QQ", index, 16)
    total = 0
    for extent in range(extents):
        state, shipped = index[4096 + 2 * extent], index[4097 + 2 * extent]
        if state in (1, 2, 3):
            total += min(shipped * BLOCK, size - extent * EXTENT, EXTENT)
    return total


def expect_no_session(store):
    left = sorted(path.name for path in (pathlib.Path(store) / DISK).parent.iterdir())
    assert not [name for name in left if name.endswith(".backhaul")], f"a session was left: {left}"


def expect_old_disk(store, scenario, disks):
    """The old disk is at its name, byte for byte; nothing is there when there was none."""
    path = pathlib.Path(store) / DISK
    if not scenario.old:
        assert not path.exists(), "there was no old disk, and now there is one"
        return
    assert sha256(path) == disks.old_sha256[scenario.disk_format], f"{scenario}: the old disk is not what it was"
    if scenario.qemu_format == "vhdx":
        harness.qemu_check(path)
    harness.qemu_compare(disks.old["raw"], "raw", path, scenario.qemu_format)


def expect_new_disk(store, scenario, disks):
    """The disk holds what the source holds, and nothing of the transfer is left."""
    path = pathlib.Path(store) / DISK
    if scenario.qemu_format == "vhdx":
        harness.qemu_check(path)
    else:
        harness.run("cmp", disks.source, path)
    harness.qemu_compare(disks.source, "raw", path, scenario.qemu_format)
    expect_no_session(store)


def expect_nothing_torn(store, scenario, disks):
    """Whatever stands at the disk's name is the whole old disk or the whole new one (of a run before this one). While
    blocks are written under undo staging nothing may stand there; under the other stagings the old disk does."""
    path = pathlib.Path(store) / DISK
    state = session_state(store)
    staged = (session_directory(store) / "staged").exists()
    if staged and state == TRANSFERRING:
        if (session_directory(store) / "undo").exists():
            assert not path.exists(), f"{scenario}: a disk that is being written stands at its name"
        else:
            assert path.exists() or not scenario.old
    if path.exists() and not (scenario.old and sha256(path) == disks.old_sha256[scenario.disk_format]):
        harness.qemu_compare(disks.source, "raw", path, scenario.qemu_format)


# Ways to be cut off ---------------------------------------------------------------------------------------------------

def cut_off_half_way(host, pki, scenario, disks, victim="source"):
    """Leaves a transfer behind of which part is recorded and part is not yet sent: kills the sender, and the host agent
    too if it is the victim. Returns what was recorded. On a slow machine a run may get through first: then again."""
    total = disks.payload(scenario)
    for _ in range(20):
        put_old_disk(host.store, scenario, disks)
        with harness.sending(host, pki, disks.source, DISK, **scenario.options(limit="16M")) as sender:
            harness.wait_until(lambda: sender.poll() is not None or recorded_bytes(host.store) > 0, 60, "a checkpoint")
            if victim == "host":
                host.kill()
            sender.kill()
        recorded = recorded_bytes(host.store)
        if 0 < recorded < total * 0.9 and session_state(host.store) == TRANSFERRING:
            return recorded
        if host.process is None:
            host.start()
    raise AssertionError("the kill never came half way")


# Moments --------------------------------------------------------------------------------------------------------------

def moments(seed, name, count, low=0.0, high=1.05):
    """`count` moments spread at random over low..high of a run; the same seed and name give the same ones."""
    chance = random.Random(f"{seed}/{name}")
    step = (high - low) / count
    return [low + step * (number + chance.random()) for number in range(count)]


def sleep_until(deadline):
    delay = deadline - time.monotonic()
    if delay > 0:
        time.sleep(delay)


def measure_run(host, pki, scenario, disks):
    """Seconds of a whole run from the start of the process, at the tests' rate limit."""
    put_old_disk(host.store, scenario, disks)
    started = time.monotonic()
    harness.send(host, pki, disks.source, DISK, **scenario.options(limit=LIMIT))
    seconds = time.monotonic() - started
    expect_new_disk(host.store, scenario, disks)
    return seconds


@pytest.fixture(scope="module")
def disks(tmp_path_factory, seed):
    return make_disks(tmp_path_factory.mktemp("disks"), seed)


@pytest.fixture
def arena(request, folder, pki):
    """The scenario's store with a running host agent."""
    scenario = request.getfixturevalue("scenario")
    try:
        with store_on(scenario, folder) as store, harness.Host(store, pki) as host:
            yield host
    except harness.CannotMount as reason:
        pytest.skip(f"cannot mount here: {reason}")
