"""What integration tests share: images under a seed, the two ends of Backhaul, independent readers, a guest in QEMU, and
file systems to put things on. Everything here runs the program as a user does (BACKHAUL_BIN); nothing reaches inside.

Whatever is started or mounted is given back by the `with` block or the fixture that made it, also when a test fails.
"""
import contextlib
import dataclasses
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "guest"))
import build_guest  # noqa: E402  (the guest's builder, for tests that boot)

BLOCK = 32 << 10
MIB = 1 << 20
GIB = 1 << 30


def program():
    """The program under test."""
    return str(pathlib.Path(os.environ.get("BACKHAUL_BIN", ROOT / "build" / "release" / "backhaul")).resolve())


def run(*command, check=True, timeout=300, **options):
    """Runs a command to its end. With `check`, a failure carries what the command said."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, errors="replace", **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done


# Images ------------------------------------------------------------------------------------------------------------

def make_image(path, size, kind="mixed", seed=1):
    """A raw image. Kinds: empty (one hole), dense (all data), sparse (2 % data in pieces), mixed (data, holes, written
    zeros and text), zeros (written zeros, no holes). The same arguments give the same bytes."""
    source = random.Random(f"{seed}/{size}/{kind}")
    with open(path, "wb") as image:
        image.truncate(size)
        if kind == "empty":
            return path
        at, sparse = 0, kind == "sparse"
        while at < size:
            length = min(size - at, source.choice([4096, BLOCK, 5 * BLOCK, MIB]))
            image.seek(at)
            if kind == "dense":
                image.write(source.randbytes(length))
            elif kind == "zeros":
                image.write(bytes(length))
            elif sparse:
                length = min(size - at, 64 << 10)
                image.write(source.randbytes(length))
                at += source.randrange(1, 6 * MIB)
            else:
                choice = source.randrange(8)
                if choice < 4:
                    image.write(source.randbytes(length))
                elif choice == 4:
                    image.write(bytes(length))
                elif choice == 5:
                    image.write((b"a line of text, over and over\n" * (length // 30 + 1))[:length])
                else:
                    length = min(size - at, source.randrange(1, 3 * MIB))
            at += length
    return path


def change_blocks(path, fraction, seed=2, unit=BLOCK):
    """Overwrites this fraction of the image's units (at least one) with new bytes. Returns the sorted unit numbers."""
    source = random.Random(f"{seed}/{fraction}")
    size = os.path.getsize(path)
    units = max(1, size // unit)
    chosen = sorted(source.sample(range(units), max(1, int(units * fraction))))
    with open(path, "r+b") as image:
        for number in chosen:
            image.seek(number * unit)
            image.write(source.randbytes(min(unit, size - number * unit)))
    return chosen


def copy_sparse(source, target):
    run("cp", "--sparse=always", "--reflink=auto", source, target)
    return target


def allocated_bytes(path):
    return os.stat(path).st_blocks * 512


# Independent readers -----------------------------------------------------------------------------------------------

def qemu_compare(one, one_format, other, other_format):
    """Fails unless qemu-img finds the contents identical. Disks of unequal size compare equal if the rest is zeros."""
    done = run("qemu-img", "compare", "-f", one_format, "-F", other_format, one, other, check=False)
    assert done.returncode == 0, f"{one} and {other} differ: {done.stdout}{done.stderr}"


def qemu_check(path):
    """Fails unless QEMU's consistency check of a VHDX finds nothing."""
    done = run("qemu-img", "check", "-f", "vhdx", path, check=False)
    assert done.returncode == 0 and "No errors" in done.stdout, f"qemu-img check {path}: {done.stdout}{done.stderr}"


def qemu_size(path, disk_format):
    return json.loads(run("qemu-img", "info", "--output=json", "-f", disk_format, path).stdout)["virtual-size"]


def seven_zip_compare(vhdx, raw):
    """Fails unless 7-Zip takes the same bytes out of the VHDX. It refuses sizes that are no multiple of 4096."""
    with tempfile.TemporaryDirectory(dir=pathlib.Path(vhdx).parent) as folder:
        run("7z", "x", "-y", "-bd", "-tvhdx", f"-o{folder}", vhdx)
        (extracted,) = [path for path in pathlib.Path(folder).iterdir() if path.is_file()]
        done = run("cmp", extracted, raw, check=False)
        assert done.returncode == 0, f"7z reads other bytes from {vhdx}: {done.stdout}{done.stderr}"


def boot(path, disk_format="raw", interface="virtio", timeout=180):
    """Boots a disk in QEMU, unchanged (writes go to a snapshot that is thrown away), and returns the serial port's text.
    Always by TCG: a /dev/kvm that exists need not work."""
    command = ["qemu-system-x86_64", "-accel", "tcg", "-M", "pc", "-m", "256", "-nodefaults", "-display", "none", "-no-reboot",
               "-serial", "stdio", "-drive", f"file={path},format={disk_format},if={interface},snapshot=on"]
    try:
        return run(*command, timeout=timeout, stdin=subprocess.DEVNULL).stdout
    except subprocess.TimeoutExpired as late:
        raise AssertionError(f"the guest did not power off in {timeout} s; serial: {(late.stdout or b'')[-3000:]}") from late


def expect_guest(path, disk_format, guest, interface="virtio"):
    """Boots the disk and fails unless the guest finds exactly what `guest` (build_guest.GuestDisk) says."""
    generation, files = build_guest.parse_report(boot(path, disk_format, interface))
    assert generation == guest.generation, f"the guest found generation {generation}, not {guest.generation}"
    assert files == guest.files, "the guest found other files than the source holds"
    return generation, files


# The two ends ------------------------------------------------------------------------------------------------------

class SendFailed(AssertionError):
    """A `backhaul` command that ended with an error. `error` is its JSON error object where there was one."""

    def __init__(self, done):
        self.returncode, self.stdout, self.stderr = done.returncode, done.stdout, done.stderr
        found = last_json(done.stdout) or last_json(done.stderr) or {}
        self.error = found.get("error", found)
        super().__init__(f"exit {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")


def last_json(text):
    """The last line that is a JSON object, or None."""
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            with contextlib.suppress(json.JSONDecodeError):
                return json.loads(line)
    return None


def backhaul(*words, timeout=300, **options):
    """Runs `backhaul WORDS --json` and returns its last JSON object; raises SendFailed unless it exits 0."""
    done = run(program(), *words, "--json", check=False, timeout=timeout, **options)
    if done.returncode != 0:
        raise SendFailed(done)
    return last_json(done.stdout) or {}


@dataclasses.dataclass
class Pki:
    """A lab's certificates: `pki init` makes host/ and appliance/ below the directory."""
    directory: pathlib.Path

    @property
    def host(self):
        return self.directory / "host"

    @property
    def appliance(self):
        return self.directory / "appliance"


def make_pki(directory):
    run(program(), "pki", "init", directory)
    return Pki(pathlib.Path(directory))


class Daemon:
    """One of the program's daemons. Use as `with Host(...) as host:`."""
    READY = re.compile(r"listening on (\S+):(\d+)")
    name = "daemon"

    def __init__(self):
        self.process, self.port, self.lines = None, 0, []
        self.ready, self.listens = threading.Event(), False

    def command(self):
        raise NotImplementedError

    def start(self, ready_timeout=30):
        """Starts it, on the port it had before if it ran before, and waits until it says that it listens."""
        self.ready.clear()
        self.listens = False
        self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        text=True, errors="replace", bufsize=1)
        self.reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self.reader.start()
        if not self.ready.wait(ready_timeout) or not self.listens:
            self.kill()
            raise AssertionError(f"the {self.name} did not get ready:\n{self.log()}")
        return self

    def _read(self, process):
        for line in process.stdout:
            self.lines.append(line)
            match = self.READY.search(line)
            if match and not self.ready.is_set():
                self.port, self.listens = int(match[2]), True
                self.ready.set()
        self.ready.set()  # it died: let start() find out

    def log(self):
        return "".join(self.lines[-200:])

    def _end(self, number, timeout):
        process, self.process = self.process, None
        if process is None:
            return None
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the {self.name} did not end {timeout} s after signal {number}:\n{self.log()}") from None
        finally:
            self.reader.join(5)
            process.stdout.close()
        return code

    def stop(self):
        """An orderly end; returns the exit code."""
        return self._end(signal.SIGTERM, 30)

    def kill(self):
        """kill -9."""
        return self._end(signal.SIGKILL, 30)

    def peak_rss_bytes(self):
        return peak_rss_bytes(self.process.pid)

    def __enter__(self):
        return self.start() if self.process is None else self

    def __exit__(self, kind, value, trace):
        if kind is not None:
            sys.stderr.write(f"---- {self.name}'s log\n{self.log()}----\n")
        if self.process is not None and self.process.poll() is None:
            self.kill() if kind is not None else self.stop()


class Host(Daemon):
    """A host agent on a free port of the loopback."""
    name = "host agent"

    def __init__(self, store, pki, tls=None, wrap=(), arguments=()):
        super().__init__()
        self.store, self.tls = pathlib.Path(store), pathlib.Path(tls or pki.host)
        self.wrap, self.arguments = list(wrap), list(arguments)

    def command(self):
        return self.wrap + [program(), "host", "--listen", f"127.0.0.1:{self.port}", "--store", str(self.store),
                            "--tls", str(self.tls)] + self.arguments

    def url(self, disk):
        return f"backhaul://127.0.0.1:{self.port}/{disk}"

    def path(self, disk):
        return self.store / disk


def peak_rss_bytes(pid):
    """The peak memory of a live process. Shared pages count as well, so this is an upper bound."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", text)[1]) * 1024


def send_words(source, url, pki, options):
    """The command line of a send; options are the CLI's, with _ for - (lanes=4, verify="full")."""
    words = [program(), "send", str(source), url, "--tls", str(options.get("tls", pki.appliance))]
    for name, value in options.items():
        if name == "tls":
            continue
        words += [f"--{name.replace('_', '-')}", str(value)]
    return words


def send(host, pki, source, disk, timeout=300, **options):
    """Sends a disk and returns the result's JSON; raises SendFailed on an error."""
    done = run(*send_words(source, host.url(disk), pki, options), "--json", check=False, timeout=timeout)
    if done.returncode != 0:
        raise SendFailed(done)
    result = last_json(done.stdout)
    assert result is not None, f"send --json printed no JSON object: {done.stdout[-2000:]}"
    return result


@contextlib.contextmanager
def sending(host, pki, source, disk, **options):
    """A send in the background (a Popen, for tests that kill it or the host agent meanwhile); dead at the end of the block."""
    process = subprocess.Popen(send_words(source, host.url(disk), pki, options) + ["--json"], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def cancel(host, pki, disk, **options):
    return backhaul("cancel", host.url(disk), "--tls", pki.appliance, **options)


def digest(path):
    """The root digest that `backhaul digest` finds."""
    return backhaul("digest", path)["root_digest"]


RESULT_FIELDS = {"disk_bytes", "bytes_read", "blocks_compared", "blocks_changed", "payload_bytes", "wire_bytes", "seconds",
                 "root_digest_source", "root_digest_target", "resumed_bytes"}


def wait_until(condition, timeout=30, what="the condition"):
    """Polls until condition() is true and returns its value; fails after the timeout."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true in {timeout} s")
        time.sleep(0.01)


# File systems ------------------------------------------------------------------------------------------------------

class CannotMount(Exception):
    """This machine does not let us mount; the message says why."""


@contextlib.contextmanager
def mounted(command, point):
    pathlib.Path(point).mkdir(parents=True, exist_ok=True)
    done = run(*command, point, check=False)
    if done.returncode != 0:
        raise CannotMount(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    try:
        yield pathlib.Path(point)
    finally:
        if run("umount", point, check=False).returncode != 0:
            run("umount", "-l", point, check=False)


@contextlib.contextmanager
def reflink_filesystem(folder, kind="xfs", size=512 * MIB):
    """An XFS or btrfs in a sparse file, mounted through a loop device: the file systems with reflink copies."""
    folder = pathlib.Path(folder)
    image = folder / f"{kind}.image"
    with open(image, "wb") as file:
        file.truncate(size)
    try:
        run(*(["mkfs.xfs", "-q", "-m", "reflink=1", image] if kind == "xfs" else ["mkfs.btrfs", "-q", image]))
        with mounted(["mount", "-o", "loop", image], folder / kind) as point:
            yield point
    finally:
        image.unlink(missing_ok=True)


@contextlib.contextmanager
def small_filesystem(folder, size=8 * MIB):
    """A tmpfs of this size, to run out of space on."""
    with mounted(["mount", "-t", "tmpfs", "-o", f"size={size}", "backhaul-test"], pathlib.Path(folder) / "small") as point:
        yield point


@contextlib.contextmanager
def temporary_folder(where=None):
    """A folder that is gone afterwards; `where` is a parent (default: the disk, by TMPDIR)."""
    folder = tempfile.mkdtemp(prefix="backhaul-test-", dir=where)
    try:
        yield pathlib.Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
