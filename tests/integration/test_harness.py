"""The harness must see what it is for: a difference, a damaged VHDX, another guest."""
import harness
import pytest


def test_the_same_seed_makes_the_same_image(folder):
    for kind in ("empty", "dense", "sparse", "mixed", "zeros"):
        one, two = (harness.make_image(folder / name, 5 * harness.MIB + 77, kind, seed=3) for name in "ab")
        assert one.read_bytes() == two.read_bytes(), kind
        other = harness.make_image(folder / "c", 5 * harness.MIB + 77, kind, seed=4)
        assert (one.read_bytes() == other.read_bytes()) == (kind in ("empty", "zeros")), kind


def test_a_sparse_image_has_holes_and_a_dense_one_none(folder):
    size = 32 * harness.MIB
    assert harness.allocated_bytes(harness.make_image(folder / "empty", size, "empty")) < harness.MIB
    assert harness.allocated_bytes(harness.make_image(folder / "sparse", size, "sparse")) < size // 4
    assert harness.allocated_bytes(harness.make_image(folder / "dense", size, "dense")) >= size


def test_one_changed_byte_fails_both_readers(folder):
    raw, vhdx = folder / "a.raw", folder / "a.vhdx"
    harness.make_image(raw, 8 * harness.MIB, "mixed")
    harness.run("qemu-img", "convert", "-O", "vhdx", raw, vhdx)
    harness.qemu_compare(raw, "raw", vhdx, "vhdx")
    harness.qemu_check(vhdx)
    harness.seven_zip_compare(vhdx, raw)
    with open(raw, "r+b") as image:
        image.seek(3 * harness.MIB)
        byte = image.read(1)
        image.seek(3 * harness.MIB)
        image.write(bytes([byte[0] ^ 1]))
    with pytest.raises(AssertionError):
        harness.qemu_compare(raw, "raw", vhdx, "vhdx")
    with pytest.raises(AssertionError):
        harness.seven_zip_compare(vhdx, raw)


def test_a_guest_reports_its_generation_and_files_and_another_one_is_noticed(guests):
    older, newer = guests
    changed = [name for name in older.files if older.files[name] != newer.files[name]]
    assert 0 < len(changed) < len(older.files)
    harness.expect_guest(newer.path, "raw", newer)
    with pytest.raises(AssertionError):
        harness.expect_guest(older.path, "raw", newer)


def test_a_reflink_store_clones(reflink_store):
    harness.make_image(reflink_store / "a", harness.MIB, "dense")
    harness.run("cp", "--reflink=always", reflink_store / "a", reflink_store / "b")


def test_a_small_store_gets_full(small_store):
    with pytest.raises(OSError):
        (small_store / "a").write_bytes(bytes(16 * harness.MIB))
