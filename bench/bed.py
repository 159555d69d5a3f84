"""The test bed: folders in memory and on the disk, images, a host agent, and sends whose work is counted.

Everything lies in folders of its own, which are gone afterwards. Source and target differ by what a figure changed just
before a run, so that each run has the same work to do.
"""
import contextlib
import dataclasses
import json
import os
import pathlib
import random
import shutil
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "integration"))
import harness  # noqa: E402
from measure import Failed, Missing, Sample, alternate, timed  # noqa: E402

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
BLOCK = harness.BLOCK
GB = 1e9


@dataclasses.dataclass
class Sizes:
    """How large everything is. One set for each kind of run."""
    rounds: int
    image: int  # of whole-disk figures
    deltas: tuple  # fractions that are changed
    final: tuple  # bytes changed in a final delta
    final_disk: int
    final_disks: tuple  # sizes of disk that get the same change
    link_rate: int  # bytes per second of the slow link
    link_bytes: tuple  # two sizes: the difference has no fixed cost in it
    delays: tuple  # seconds, one way is half
    growth: tuple  # sizes of sparse disks
    growth_data: int
    disks: int
    benchmark_s: float


FULL = Sizes(5, 2 * GIB, (0.01, 0.1), (1 * MIB, 16 * MIB, 256 * MIB, 1 * GIB), 4 * GIB, (2 * GIB, 64 * GIB, TIB), 40_000_000,
             (32 * MIB, 192 * MIB), (0.05, 0.2), (GIB, 64 * GIB, TIB, 16 * TIB), 64 * MIB, 8, 0.3)
QUICK = Sizes(5, 512 * MIB, (0.01, 0.1), (1 * MIB, 16 * MIB, 128 * MIB), GIB, (GIB, 64 * GIB, TIB), 40_000_000,
              (16 * MIB, 96 * MIB), (0.05, 0.2), (GIB, TIB, 16 * TIB), 32 * MIB, 8, 0.1)
SMOKE = Sizes(1, 24 * MIB, (0.01,), (1 * MIB, 4 * MIB), 16 * MIB, (16 * MIB, GIB), 40_000_000, (1 * MIB, 3 * MIB), (0.02,),
              (GIB, 16 * TIB), 4 * MIB, 2, 0.01)


def human(size):
    for unit, name in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB")):
        if size >= unit:
            return f"{size // unit} {name}"
    return f"{size} B"


def noise(size, seed):
    """Bytes that neither compress nor repeat."""
    return random.Random(seed).randbytes(size)


def text(size, seed):
    """Bytes that compress about threefold, as much of a system disk does: words of a small vocabulary in random order."""
    source = random.Random(seed)
    words = [source.randbytes(source.randrange(3, 9)).hex().encode() + b" " for _ in range(1024)]
    made = b"".join(source.choices(words, k=size // 12 + 1))
    while len(made) < size:
        made += made
    return made[:size]


def make_disk(path, size, seed=1, content=noise):
    """A raw disk of runs of data (a bit more than half of it) and holes; returns the bytes of data. Data runs are 1 to 8 MiB."""
    source = random.Random(f"{seed}/{size}")
    data = at = 0
    with open(path, "wb") as image:
        image.truncate(size)
        while at < size:
            length = min(size - at, source.randrange(1, 9) * MIB)
            image.seek(at)
            for piece in range(0, length, MIB):
                image.write(content(min(MIB, length - piece), f"{seed}/{at + piece}"))
            data += length
            at += length + source.randrange(1, 7) * MIB
    return data


def make_dense(path, size, seed=1, content=noise):
    with open(path, "wb") as image:
        for at in range(0, size, MIB):
            image.write(content(min(MIB, size - at), f"{seed}/{at}"))
    return size


def copy(source, target):
    """A target disk with the source's content, its holes included."""
    harness.run("cp", "--sparse=always", "--reflink=never", source, target, timeout=1800)
    return target


def data_units(path, unit):
    """The numbers of the units of the file that hold data."""
    units, size, at = [], os.path.getsize(path), 0
    with open(path, "rb") as image:
        while at < size:
            try:
                at = os.lseek(image.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(image.fileno(), at, os.SEEK_HOLE)
            units += range(-(-at // unit), end // unit)
            at = end
    return units


def overwrite_with_zeros(path):
    """Zeros in place of all data; the pages stay."""
    with open(path, "r+b") as image:
        for number in data_units(path, MIB):
            os.pwrite(image.fileno(), bytes(MIB), number * MIB)


class Changes:
    """Overwrites scattered units of a disk's data, other bytes each time. What changed last is in `extents`."""

    def __init__(self, path, unit=64 * KIB):
        self.path, self.unit, self.runs, self.extents = pathlib.Path(path), unit, 0, []
        self.units = data_units(path, unit)

    def make(self, size):
        """Changes `size` bytes, rounded to units; as many as there are at most."""
        self.runs += 1
        source = random.Random(f"{self.path.name}/{self.runs}")
        count = min(len(self.units), max(1, size // self.unit))
        chosen = sorted(source.sample(self.units, count))
        with open(self.path, "r+b") as image:
            for number in chosen:
                os.pwrite(image.fileno(), source.randbytes(self.unit), number * self.unit)
            os.fsync(image.fileno())
        self.extents = [{"offset": number * self.unit, "length": self.unit} for number in chosen]
        return count * self.unit

    def list(self, path):
        path.write_text(json.dumps(self.extents))
        return path


def lanes_in_memory():
    """Where nothing but the CPU binds, both ends of a lane share the cores: one lane for two of them."""
    return max(1, (os.cpu_count() or 1) // 2)


def drop_cache(*paths):
    """What is read next comes from the device, not from the page cache."""
    for path in paths:
        with contextlib.suppress(OSError), open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def which(program):
    """On the search path, and where daemons lie that a person's path does not name."""
    path = os.environ.get("PATH", os.defpath)
    return shutil.which(program, path=path if "sbin" in path else path + ":/usr/sbin")


def need(*programs):
    for program in programs:
        if not which(program):
            raise Missing(f"{program} is not installed")


def has(*programs):
    return all(map(which, programs))


class Bed:
    """What figures work with: sizes, folders, certificates, and one host agent for each place. `programs`: the one to measure, or an
    old and a new one."""

    def __init__(self, sizes, memory_folder="/dev/shm", disk_folder=None, programs=()):
        self.sizes, self.stack = sizes, contextlib.ExitStack()
        self.programs = list(programs) or [harness.program()]
        os.environ["BACKHAUL_BIN"] = str(self.programs[-1])
        self.parents = {"memory": memory_folder, "disk": disk_folder or os.environ.get("TMPDIR", "/var/tmp")}

    def __enter__(self):
        self.folder = pathlib.Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="backhaul-bench-")))
        self.pki = harness.make_pki(self.folder / "pki")
        return self

    def __exit__(self, *trace):
        return self.stack.__exit__(*trace)

    @contextlib.contextmanager
    def place(self, name):
        """A fresh folder in "memory" or on the "disk", with a store and a host agent in it: gives a Place."""
        folder = pathlib.Path(tempfile.mkdtemp(prefix=f"backhaul-bench-{os.getpid()}-", dir=self.parents[name]))
        try:
            (folder / "store").mkdir()
            with harness.Host(folder / "store", self.pki) as host:
                yield Place(self, name, folder, host, harness.program())
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def beside(self, name):
        """A program of our own that was built beside `backhaul`."""
        path = pathlib.Path(harness.program()).parent / name
        if not os.access(path, os.X_OK):
            raise Missing(f"{name} is not built")
        return path


@dataclasses.dataclass
class Place:
    bed: Bed
    name: str
    folder: pathlib.Path
    agent: harness.Host
    runs: str  # the program that the agent runs

    @property
    def store(self):
        return self.folder / "store"

    @property
    def host(self):
        """The host agent. When the program has changed since, the new one's takes over the store and the port."""
        if self.runs != harness.program():
            self.agent.stop()
            self.agent.start()
            self.runs = harness.program()
        return self.agent

    def alternate(self, contestants, rounds=None):
        return alternate(contestants, rounds or self.bed.sizes.rounds, self.bed.programs)

    def forget_digests(self, disk):
        (self.store / f".{disk}.digests").unlink(missing_ok=True)

    def send(self, source, disk, via=None, verified=True, **options):
        """One send as a Sample. With `verified`, both ends' root digests must be there and equal."""
        host = self.host
        words = harness.send_words(source, (via or host).url(disk), self.bed.pki, options) + ["--json"]
        wall, cpu, out, peak = timed(words, daemons=[host.process.pid])
        result = harness.last_json(out)
        if not result:
            raise Failed(f"send said nothing: {out[-1000:]}")
        if verified and (not result["root_digest_source"] or result["root_digest_source"] != result["root_digest_target"]):
            raise Failed(f"the ends' root digests differ: {result}")
        return Sample(wall, cpu, result["payload_bytes"], {**result, "peak_rss_bytes": peak, "host_peak_rss_bytes": host.peak_rss_bytes()})


def expect_equal(source, target):
    """Fails unless both hold the same bytes: no figure stands on a copy that is wrong."""
    done = harness.run("cmp", source, target, check=False, timeout=1800)
    if done.returncode != 0:
        raise Failed(f"{target} is not {source}: {done.stdout}{done.stderr}")
