"""Our VHDX disks and those of others, judged by independent readers: qemu-img, 7z and libvhdi.

Run: /usr/bin/python3 -m pytest tests/integration/test_vhdx_interop.py
The programs under test are looked for in BACKHAUL_BUILD, else in build/release.
"""
import os
import pathlib
import random
import re
import shutil
import struct
import subprocess
import uuid

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = pathlib.Path(os.environ.get("BACKHAUL_BUILD", ROOT / "build" / "release")) / "vhdx_tool"
MIB = 1 << 20

pytestmark = [
    pytest.mark.skipif(not TOOL.exists(), reason=f"{TOOL} is not built"),
    pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is missing"),
]


def run(*args, code=0):
    done = subprocess.run([str(arg) for arg in args], capture_output=True, text=True)
    assert code is None or done.returncode == code, f"{args}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def tool(*args, code=0):
    return run(TOOL, *args, code=code)


def make_raw(path, size, seed=1, runs=24):
    """A sparse file with some runs of random bytes, and one that ends with the file."""
    rng = random.Random(seed)
    with open(path, "wb") as raw:
        raw.truncate(size)
        for i in range(runs):
            length = min(rng.choice((512, 4096, 65536, 300000)), size)
            raw.seek(size - length if i == 0 else rng.randrange(0, size - length + 1) // 512 * 512)
            raw.write(rng.randbytes(length))
    return path


def change_raw(path, changed, seed):
    """A copy with other bytes in some places; returns the ranges that differ as OFFSET:LENGTH."""
    shutil.copyfile(path, changed)
    size = os.path.getsize(path)
    rng = random.Random(seed)
    ranges = []
    with open(changed, "r+b") as raw:
        for _ in range(8):
            length = min(rng.choice((512, 4096, 70000)), size)
            offset = rng.randrange(0, size - length + 1)
            raw.seek(offset)
            raw.write(rng.randbytes(length))
            ranges.append(f"{offset}:{length}")
    return ranges


def same_file(a, b):
    return subprocess.run(["cmp", "-s", a, b]).returncode == 0


def expect_same(disk, raw, tmp_path):
    """Every reader finds the raw file's bytes in the disk, and qemu-img finds nothing wrong with it."""
    assert "No errors" in run("qemu-img", "check", "-f", "vhdx", disk).stdout
    run("qemu-img", "compare", "-f", "raw", "-F", "vhdx", raw, disk)
    tool("dump", disk, tmp_path / "dump.raw")
    assert same_file(tmp_path / "dump.raw", raw)
    expect_7z(disk, raw, tmp_path)


def expect_7z(disk, raw, tmp_path):
    # 7z refuses disks that are no multiple of 4096.
    if shutil.which("7z") is None or os.path.getsize(raw) % 4096 != 0:
        return
    out = tmp_path / "7z"
    shutil.rmtree(out, ignore_errors=True)
    run("7z", "x", "-y", "-tvhdx", f"-o{out}", disk)
    (extracted,) = out.iterdir()
    assert same_file(extracted, raw)
    shutil.rmtree(out)


@pytest.mark.parametrize("kind", ["dynamic", "fixed"])
@pytest.mark.parametrize("block_mib", [1, 2, 32, 256])
@pytest.mark.parametrize("size", [512, 40 * MIB, 70 * MIB + 4096, 33 * MIB - 512, 2 * MIB + 1536])
def test_others_read_what_we_made(tmp_path, kind, block_mib, size):
    raw = make_raw(tmp_path / "s.raw", size)
    disk = tmp_path / "t.vhdx"
    tool("create", disk, size, block_mib * MIB, kind, 512)
    half = size // 1024 * 512
    tool("patch", disk, raw, 0, f"{half}:{size - half}", *([f"0:{half}"] if half else []))
    expect_same(disk, raw, tmp_path)
    if kind == "fixed":
        assert os.path.getsize(disk) >= size


@pytest.mark.parametrize("subformat", ["dynamic", "fixed"])
@pytest.mark.parametrize("state_zero", ["on", "off"])
@pytest.mark.parametrize("block_mib", [0, 1, 8, 256])
def test_we_update_what_qemu_made(tmp_path, subformat, state_zero, block_mib):
    size = 45 * MIB + 512 * 3
    old = make_raw(tmp_path / "old.raw", size)
    disk = tmp_path / "t.vhdx"
    options = f"subformat={subformat},block_size={block_mib * MIB},block_state_zero={state_zero}"
    if (subformat, state_zero) == ("dynamic", "off"):
        # qemu-img's help warns of convert here; an empty disk is sound, and our patch fills it.
        run("qemu-img", "create", "-f", "vhdx", "-o", options, disk, size)
        tool("patch", disk, old, 0, f"0:{size}")
    else:
        run("qemu-img", "convert", "-f", "raw", "-O", "vhdx", "-o", options, old, disk)
    expect_same(disk, old, tmp_path)
    for seed in (2, 3):
        new = tmp_path / "new.raw"
        ranges = change_raw(old, new, seed)
        tool("patch", disk, new, 0, *ranges)
        expect_same(disk, new, tmp_path)
        shutil.copyfile(new, old)


def test_qemu_updates_what_we_made(tmp_path):
    size = 40 * MIB
    raw = make_raw(tmp_path / "s.raw", size)
    disk = tmp_path / "t.vhdx"
    tool("create", disk, size, 2 * MIB, "dynamic", 512)
    tool("patch", disk, raw, 0, f"0:{10 * MIB}")
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "vhdx", raw, disk)
    expect_same(disk, raw, tmp_path)


def test_a_kill_at_any_change_leaves_a_disk_that_qemu_repairs_and_we_read(tmp_path):
    size = 24 * MIB
    raw = make_raw(tmp_path / "s.raw", size, runs=40)
    fresh = tmp_path / "fresh.vhdx"
    tool("create", fresh, size, MIB, "dynamic", 512)
    ranges = [(i * 5 * MIB, 3 * MIB) for i in range(4)]
    texts = [f"{offset}:{length}" for offset, length in ranges]
    kill_after, pending = 0, 0
    while True:
        kill_after += 1
        disk = tmp_path / "t.vhdx"
        shutil.copyfile(fresh, disk)
        done = tool("patch", disk, raw, kill_after, *texts, code=None)
        if done.returncode == 0:
            break
        assert done.returncode == 9, done.stderr
        tool("dump", disk, tmp_path / "before.raw")  # with the log in memory
        if struct.unpack_from("<16s", disk.read_bytes(), newest_header(disk) + 48)[0] != bytes(16):
            pending += 1
        run("qemu-img", "check", "-r", "all", "-f", "vhdx", disk)
        tool("dump", disk, tmp_path / "after.raw")
        assert same_file(tmp_path / "before.raw", tmp_path / "after.raw"), kill_after
        run("qemu-img", "compare", "-f", "raw", "-F", "vhdx", tmp_path / "after.raw", disk)
        expected, found = raw.read_bytes(), (tmp_path / "after.raw").read_bytes()
        for offset, length in ranges[: done.stdout.count("checkpoint")]:
            assert found[offset : offset + length] == expected[offset : offset + length], kill_after
    assert kill_after > 40 and pending > 10


# A writer of logs, from the specification, apart from the program's own.

CRC_TABLE = []
for byte in range(256):
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    CRC_TABLE.append(byte)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def newest_header(disk):
    with open(disk, "rb") as file:
        def sequence(offset):
            file.seek(offset)
            return struct.unpack("<4sIQ", file.read(16))[2]
        return max((64 << 10, 128 << 10), key=sequence)


def log_entry(guid, sequence, tail, file_size, changes):
    """changes: (offset, 4096 bytes) or (offset, length to zero)."""
    descriptors, sectors = b"", b""
    for offset, what in changes:
        if isinstance(what, int):
            descriptors += struct.pack("<4sIQQQ", b"zero", 0, what, offset, sequence)
        else:
            descriptors += struct.pack("<4s4s8sQQ", b"desc", what[-4:], what[:8], offset, sequence)
            sectors += struct.pack("<4sI4084sI", b"data", sequence >> 32, what[8:-4], sequence & 0xFFFFFFFF)
    head_length = (64 + len(descriptors) + 4095) // 4096 * 4096
    def build(checksum):
        head = struct.pack("<4sIIIQII16sQQ", b"loge", checksum, head_length + len(sectors), tail, sequence, len(changes), 0,
                           guid, file_size, file_size)
        return (head + descriptors).ljust(head_length, b"\0") + sectors
    return build(crc32c(build(0)))


def set_log_guid(file, guid):
    for offset in (64 << 10, 128 << 10):
        file.seek(offset)
        header = bytearray(file.read(4096))
        header[48:64] = guid
        header[4:8] = bytes(4)
        header[4:8] = struct.pack("<I", crc32c(header))
        file.seek(offset)
        file.write(header)


def region(disk, kind):
    table = disk.read_bytes()[192 << 10 : 256 << 10]
    (count,) = struct.unpack_from("<I", table, 8)
    for i in range(count):
        guid, offset, _length, _flags = struct.unpack_from("<16sQII", table, 16 + 32 * i)
        if uuid.UUID(bytes_le=guid) == uuid.UUID(kind):
            return offset
    raise AssertionError(kind)


@pytest.mark.parametrize("start", [0, 64 << 10, MIB - 8192, MIB - 4096])
def test_a_crafted_log_is_replayed_as_qemu_replays_it(tmp_path, start):
    """The table's page is lost in the file and only in the log; other entries write zeros, or are old; the ring wraps."""
    size = 20 * MIB
    raw = make_raw(tmp_path / "s.raw", size)
    disk = tmp_path / "t.vhdx"
    run("qemu-img", "convert", "-f", "raw", "-O", "vhdx", "-o", "block_size=1M", raw, disk)
    bat = region(disk, "2DC27766-F623-4200-9D64-115E9BFD4A08")
    guid = uuid.uuid4().bytes
    with open(disk, "r+b") as file:
        file.seek(bat)
        page = file.read(4096)
        file.seek(bat)
        file.write(bytes(range(256)) * 16)
        file_size = file.seek(0, 2)
        # A sequence of an old entry, then two that count: zeros over the page, then the page.
        ring = bytearray(MIB)
        at = start
        def put(data):
            nonlocal at
            for i, value in enumerate(data):
                ring[(at + i) % MIB] = value
            at = (at + len(data)) % MIB
        put(log_entry(guid, 7, start, file_size, [(bat + 8192, 4096)]))
        tail = at
        put(log_entry(guid, 8, tail, file_size, [(bat, 8192)]))
        put(log_entry(guid, 9, tail, file_size, [(bat + 4096, 4096), (bat, page)]))
        file.seek(struct.unpack("<Q", disk.read_bytes()[newest_header(disk) + 72 :][:8])[0])
        file.write(ring)
        set_log_guid(file, guid)

    by_qemu = tmp_path / "qemu.vhdx"
    shutil.copyfile(disk, by_qemu)
    run("qemu-img", "check", "-r", "all", "-f", "vhdx", by_qemu)
    run("qemu-img", "compare", "-f", "raw", "-F", "vhdx", raw, by_qemu)

    before = disk.read_bytes()
    tool("dump", disk, tmp_path / "dump.raw")  # for reading: in memory
    assert same_file(tmp_path / "dump.raw", raw)
    assert disk.read_bytes() == before
    tool("open", disk, "write")
    expect_same(disk, raw, tmp_path)
    assert disk.read_bytes()[MIB * 2 :] == by_qemu.read_bytes()[MIB * 2 :]


def test_sectors_of_4096_are_read_by_7z_and_libvhdi(tmp_path):
    size = 30 * MIB + 8192
    raw = make_raw(tmp_path / "s.raw", size)
    disk = tmp_path / "t.vhdx"
    tool("create", disk, size, MIB, "dynamic", 4096)
    tool("patch", disk, raw, 0, f"0:{size}")
    assert tool("open", disk, "read").stdout.split() == [str(size), "4096", "dynamic"]
    tool("dump", disk, tmp_path / "dump.raw")
    assert same_file(tmp_path / "dump.raw", raw)
    expect_7z(disk, raw, tmp_path)
    if shutil.which("vhdiinfo") is None:
        pytest.skip("libvhdi is missing")
    info = run("vhdiinfo", disk).stdout
    assert str(size) in info
    if not os.path.exists("/dev/fuse"):
        pytest.skip("no FUSE: libvhdi saw only the metadata")
    mount = tmp_path / "mount"
    mount.mkdir()
    run("vhdimount", disk, mount)
    try:
        assert same_file(mount / "vhdi1", raw)
    finally:
        run("umount", mount)


@pytest.mark.parametrize("kind", ["dynamic", "fixed"])
def test_a_sparse_tebibyte_takes_no_time_and_no_space(tmp_path, kind):
    size = 1 << 40
    raw = tmp_path / "s.raw"
    with open(raw, "wb") as file:
        file.truncate(size)
        file.seek(size - 4096)
        file.write(os.urandom(4096))
    disk = tmp_path / "t.vhdx"
    tool("create", disk, size, MIB, kind, 512)
    tool("patch", disk, raw, 0, f"{size - 4096}:4096")
    assert os.stat(disk).st_blocks * 512 < 32 * MIB
    # Not compared by cmp, which reads a tebibyte.
    tool("dump", disk, tmp_path / "dump.raw")
    with open(raw, "rb") as a, open(tmp_path / "dump.raw", "rb") as b:
        a.seek(size - 4096), b.seek(size - 4096)
        assert a.read() == b.read()
    assert os.path.getsize(tmp_path / "dump.raw") == size


def test_errors_name_the_code_the_cause_and_the_fix(tmp_path):
    disk = tmp_path / "t.vhdx"
    run("qemu-img", "create", "-f", "vhdx", disk, "20M")
    with open(disk, "r+b") as file:
        for offset in (64 << 10, 128 << 10):
            file.seek(offset + 100)
            file.write(b"x")
    done = tool("open", disk, "read", code=1)
    assert re.match(r"vhdx\.no_valid_header: .*\. Fix: ", done.stderr)
