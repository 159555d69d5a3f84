"""A disk goes from one end to the other, and independent readers agree about what arrived."""
import os

import harness
import pytest
from harness import BLOCK, MIB

QEMU_FORMAT = {"raw": "raw", "vhdx": "vhdx", "vhdx-fixed": "vhdx"}

# (kind, bytes, format, lanes): every kind, format and lane count, and sizes that are no multiple of anything.
SHAPES = [
    ("dense", 1, "raw", 1),
    ("dense", 511, "vhdx", 2),
    ("empty", 5 * MIB + 1, "raw", 5),
    ("mixed", 37 * MIB + 17, "raw", 1),
    ("zeros", 8 * MIB, "raw", 2),
    ("dense", 16 * MIB, "vhdx", 4),
    ("mixed", 33 * MIB + 3 * 512, "vhdx", 7),
    ("sparse", 300 * MIB + 4096, "vhdx", 8),
    ("empty", 200 * MIB, "vhdx", 3),
    ("mixed", 24 * MIB + 1023, "vhdx-fixed", 3),
    ("empty", 64 * MIB, "vhdx-fixed", 2),
    ("dense", 12 * MIB + 4096, "vhdx-fixed", 6),
]


def expect_equal(source, target, disk_format, result):
    """Everything that must hold after a send: the readers, the digests and the result's own numbers."""
    assert harness.RESULT_FIELDS <= result.keys()
    assert result["root_digest_source"] == result["root_digest_target"]
    assert result["root_digest_target"] == harness.digest(target)
    size = os.path.getsize(source)
    if disk_format == "raw":
        assert os.path.getsize(target) == size
        harness.run("cmp", source, target)
    else:
        assert harness.qemu_size(target, "vhdx") == (size + 511) // 512 * 512
        harness.qemu_check(target)
        if size % 4096 == 0:
            harness.seven_zip_compare(target, source)
    harness.qemu_compare(source, "raw", target, QEMU_FORMAT[disk_format])


def name_of(shape):
    kind, size, disk_format, lanes = shape
    return f"{kind}-{size}-{disk_format}-{lanes}"


@pytest.mark.parametrize("shape", SHAPES, ids=name_of)
def test_a_full_send_makes_an_equal_disk(host, pki, folder, seed, shape):
    kind, size, disk_format, lanes = shape
    source = harness.make_image(folder / "source.raw", size, kind, seed)
    result = harness.send(host, pki, source, "vm/disk", sync="full", format=disk_format, lanes=lanes, verify="full")
    assert result["disk_bytes"] >= size
    expect_equal(source, host.path("vm/disk"), disk_format, result)


@pytest.mark.parametrize("shape", SHAPES, ids=name_of)
def test_a_delta_onto_an_older_copy_ships_what_changed(host, pki, folder, seed, shape):
    kind, size, disk_format, lanes = shape
    source = harness.make_image(folder / "source.raw", size, kind, seed)
    target = host.path("disk")
    if disk_format == "raw":
        harness.copy_sparse(source, target)
    else:
        subformat = "fixed" if disk_format == "vhdx-fixed" else "dynamic"
        harness.run("qemu-img", "convert", "-f", "raw", "-O", "vhdx", "-o", f"subformat={subformat}", source, target)
    changed = harness.change_blocks(source, 0.02, seed)
    result = harness.send(host, pki, source, "disk", sync="delta", format=disk_format, lanes=lanes, compress="off")
    assert result["blocks_changed"] == len(changed)
    assert result["payload_bytes"] <= len(changed) * BLOCK
    expect_equal(source, target, disk_format, result)


@pytest.mark.parametrize("disk_format", ["raw", "vhdx", "vhdx-fixed"])
def test_a_delta_onto_nothing_makes_the_disk(host, pki, folder, seed, disk_format):
    source = harness.make_image(folder / "source.raw", 21 * MIB, "mixed", seed)
    result = harness.send(host, pki, source, "new", sync="delta", format=disk_format, lanes=2)
    expect_equal(source, host.path("new"), disk_format, result)


@pytest.mark.parametrize("disk_format", ["raw", "vhdx"])
def test_an_equal_disk_ships_nothing(host, pki, folder, seed, disk_format):
    source = harness.make_image(folder / "source.raw", 40 * MIB, "mixed", seed)
    harness.send(host, pki, source, "disk", sync="full", format=disk_format)
    result = harness.send(host, pki, source, "disk", sync="delta", format=disk_format)
    assert result["blocks_changed"] == 0
    assert result["payload_bytes"] == 0
    expect_equal(source, host.path("disk"), disk_format, result)


def test_a_full_send_onto_another_disk_replaces_all_of_it(host, pki, folder, seed):
    source = harness.make_image(folder / "source.raw", 24 * MIB, "sparse", seed)
    harness.make_image(host.path("disk"), 24 * MIB, "dense", seed + 1)
    result = harness.send(host, pki, source, "disk", sync="full", format="raw", verify="full")
    expect_equal(source, host.path("disk"), "raw", result)


def test_data_that_became_zeros_or_a_hole_arrives_as_zeros(host, pki, folder, seed):
    source = harness.make_image(folder / "source.raw", 16 * MIB, "dense", seed)
    harness.send(host, pki, source, "disk", sync="full", format="vhdx")
    with open(source, "r+b") as image:
        image.seek(4 * MIB)
        image.write(bytes(MIB))
    harness.run("fallocate", "--punch-hole", "--offset", 9 * MIB, "--length", 2 * MIB, source)
    result = harness.send(host, pki, source, "disk", sync="delta", format="vhdx")
    assert result["blocks_changed"] == 3 * MIB // BLOCK
    assert result["payload_bytes"] < BLOCK  # ranges, not content
    expect_equal(source, host.path("disk"), "vhdx", result)


QEMU_MADE = [("dynamic", "1M"), ("dynamic", "8M"), ("dynamic", "64M"), ("dynamic", "256M"), ("fixed", "1M"), ("fixed", "32M")]


@pytest.mark.parametrize("subformat,block_size", QEMU_MADE)
def test_a_delta_onto_a_vhdx_that_qemu_made(host, pki, folder, seed, subformat, block_size):
    source = harness.make_image(folder / "source.raw", 70 * MIB + 512, "mixed", seed)
    target = host.path("vm.vhdx")
    harness.run("qemu-img", "convert", "-f", "raw", "-O", "vhdx", "-o", f"subformat={subformat},block_size={block_size}", source, target)
    harness.change_blocks(source, 0.03, seed)
    disk_format = "vhdx-fixed" if subformat == "fixed" else "vhdx"
    result = harness.send(host, pki, source, "vm.vhdx", sync="delta", format=disk_format, lanes=3)
    expect_equal(source, target, disk_format, result)


def test_an_empty_vhdx_of_qemu_is_filled(host, pki, folder, seed):
    source = harness.make_image(folder / "source.raw", 48 * MIB, "mixed", seed)
    harness.run("qemu-img", "create", "-q", "-f", "vhdx", host.path("vm.vhdx"), 48 * MIB)
    result = harness.send(host, pki, source, "vm.vhdx", sync="delta", format="vhdx")
    expect_equal(source, host.path("vm.vhdx"), "vhdx", result)


def test_the_root_digest_depends_on_content_and_size_only(folder, seed):
    raw = harness.make_image(folder / "a.raw", 20 * MIB, "sparse", seed)
    dense = folder / "dense.raw"
    harness.run("cp", "--sparse=never", raw, dense)
    expected = harness.digest(raw)
    assert harness.digest(dense) == expected
    for subformat in ("dynamic", "fixed"):
        vhdx = folder / f"{subformat}.vhdx"
        harness.run("qemu-img", "convert", "-f", "raw", "-O", "vhdx", "-o", f"subformat={subformat}", raw, vhdx)
        assert harness.digest(vhdx) == expected
    with open(raw, "ab") as image:
        image.truncate(20 * MIB + 4096)
    assert harness.digest(raw) != expected


@pytest.mark.alone
def test_a_terabyte_of_holes_takes_seconds(host, pki, folder, seed):
    source = harness.make_image(folder / "source.raw", 96 * MIB, "mixed", seed)
    os.truncate(source, 1 << 40)
    result = harness.send(host, pki, source, "big", sync="full", format="vhdx", verify="full", timeout=120)
    assert result["seconds"] < 30
    assert result["bytes_read"] <= 96 * MIB
    harness.change_blocks(source, 1 / (1 << 24), seed)  # two of 33 million blocks
    result = harness.send(host, pki, source, "big", sync="delta", format="vhdx", timeout=120)
    assert result["seconds"] < 30
    assert result["blocks_changed"] == 2
    assert result["root_digest_source"] == result["root_digest_target"] == harness.digest(host.path("big"))
    harness.qemu_check(host.path("big"))


@pytest.mark.parametrize("disk_format,interface", [("raw", "virtio"), ("vhdx", "ide"), ("vhdx-fixed", "virtio")])
def test_a_guest_comes_home_and_boots(host, pki, guests, disk_format, interface):
    older, newer = guests
    target = host.path("guest")
    if disk_format == "raw":
        harness.copy_sparse(older.path, target)
    else:
        subformat = "fixed" if disk_format == "vhdx-fixed" else "dynamic"
        harness.run("qemu-img", "convert", "-f", "raw", "-O", "vhdx", "-o", f"subformat={subformat}", older.path, target)
    result = harness.send(host, pki, newer.path, "guest", sync="delta", format=disk_format)
    assert 0 < result["blocks_changed"] < result["blocks_compared"]
    expect_equal(newer.path, target, disk_format, result)
    harness.expect_guest(target, QEMU_FORMAT[disk_format], newer, interface)
