"""Bounds: memory, bytes read, bytes on the wire; and each option of the command line does what it says."""
import json
import os

import harness
import pytest
from harness import BLOCK, GIB, MIB
from refusal import expect_error, expect_good_send, refused, tree

EXTENT = 4 * MIB
TIB = 1 << 40
MEMORY_LIMIT = 256 * MIB


def send_measured(host, pki, source, disk, timeout=300, **options):
    """A send, with the peak memory of the sender: (result, bytes)."""
    words = harness.send_words(source, host.url(disk), pki, options) + ["--json"]
    script = ("import json, os, resource, subprocess, sys\n"
              "done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE)\n"
              "sys.stdout.buffer.write(done.stdout)\n"
              "print(json.dumps({'peak': resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024}))\n"
              "sys.exit(done.returncode)\n")
    done = harness.run("/usr/bin/python3", "-c", script, *words, timeout=timeout)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return lines[-2], lines[-1]["peak"]


def fill(path, size):
    """Fast noise that does not compress."""
    with open(path, "wb") as image:
        for _ in range(0, size, MIB):
            image.write(os.urandom(MIB))
    return path


def sprinkle(path, size, data):
    """A sparse image: `data` bytes of noise in pieces of 1 MiB, evenly over the disk; each in one extent."""
    pieces = data // MIB
    with open(path, "wb") as image:
        image.truncate(size)
        for piece in range(pieces):
            image.seek(size // pieces * piece // EXTENT * EXTENT + MIB)
            image.write(os.urandom(MIB))
    return path


# Memory and wire ---------------------------------------------------------------------------------------------------

@pytest.mark.alone
def test_memory_and_wire_stay_bounded_from_a_gibibyte_to_a_tebibyte(pki, folder, seed):
    peaks = {}

    dense = fill(folder / "dense.raw", GIB)
    store = folder / "store"
    store.mkdir()
    with harness.Host(store, pki) as host:
        result, sender = send_measured(host, pki, dense, "disk", sync="full", lanes=4)
        assert result["root_digest_source"] == result["root_digest_target"]
        assert result["bytes_read"] == GIB and result["wire_bytes"] <= GIB * 1.01
        changed = harness.change_blocks(dense, 0.01, seed)
        delta, delta_sender = send_measured(host, pki, dense, "disk", sync="delta", lanes=4)
        assert delta["blocks_changed"] == len(changed)
        assert delta["wire_bytes"] <= 1.1 * len(changed) * BLOCK + 0.0006 * GIB
        assert delta["root_digest_source"] == delta["root_digest_target"] == harness.digest(host.path("disk"))
        again, _ = send_measured(host, pki, dense, "disk", sync="delta", lanes=4)
        assert again["payload_bytes"] == again["blocks_changed"] == 0
        assert again["wire_bytes"] <= 0.0006 * GIB + 64 * 1024
        peaks["1 GiB"] = (max(sender, delta_sender), host.peak_rss_bytes())
        host.path("disk").unlink()
    dense.unlink()

    data = 100 * MIB
    source = sprinkle(folder / "sparse.raw", TIB, data)
    for disk in ("raw", "vhdx"):
        with harness.Host(store, pki) as host:
            result, sender = send_measured(host, pki, source, f"big.{disk}", sync="full", lanes=4)
            assert result["disk_bytes"] == TIB and result["bytes_read"] == data
            assert result["wire_bytes"] <= data * 1.02 + MIB
            assert result["root_digest_source"] == result["root_digest_target"]
            with open(source, "r+b") as image:
                image.seek(MIB)
                image.write(os.urandom(BLOCK))
            delta, delta_sender = send_measured(host, pki, source, f"big.{disk}", sync="delta", lanes=4)
            assert delta["blocks_changed"] == 1 and delta["bytes_read"] == data
            assert delta["wire_bytes"] <= 1.1 * BLOCK + 0.0006 * data + 512 * 1024
            again, again_sender = send_measured(host, pki, source, f"big.{disk}", sync="delta", lanes=4)
            assert again["payload_bytes"] == 0 and again["wire_bytes"] <= 0.0006 * data + 512 * 1024
            assert again["root_digest_source"] == again["root_digest_target"]
            peaks[f"1 TiB {disk}"] = (max(sender, delta_sender, again_sender), host.peak_rss_bytes())
        assert harness.allocated_bytes(host.path(f"big.{disk}")) <= (data * 8 if disk == "vhdx" else data + 4 * MIB) + 64 * MIB
        host.path(f"big.{disk}").unlink()

    print({name: [f"{peak / MIB:.0f} MiB" for peak in pair] for name, pair in peaks.items()})
    for name, pair in peaks.items():
        assert max(pair) <= MEMORY_LIMIT, peaks
        for small, large in zip(peaks["1 GiB"], pair):
            assert large <= small + 16 * MIB, (name, peaks)


# --changed ---------------------------------------------------------------------------------------------------------

@pytest.fixture
def grown(host, pki, folder, seed):
    """A source whose disk is at the host agent, and which has changed since in two places: (source, old copy)."""
    source = harness.make_image(folder / "source.raw", 24 * MIB, "dense", seed)
    harness.send(host, pki, source, "disk", sync="full")
    old = bytearray(source.read_bytes())
    with open(source, "r+b") as image:
        for place in (5 * MIB, 17 * MIB):
            image.seek(place)
            image.write(os.urandom(3 * BLOCK))
    return source, old


def extents_file(folder, content):
    path = folder / "extents.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


NBDINFO = [{"offset": 0, "length": 5 * MIB, "type": 0, "description": "clean"},
           {"offset": 5 * MIB, "length": 3 * BLOCK, "type": 1, "description": "dirty"},
           {"offset": 5 * MIB + 3 * BLOCK, "length": 19 * MIB - 3 * BLOCK, "type": 0, "description": "clean"}]


@pytest.mark.parametrize("content", [{"extents": [{"offset": 5 * MIB, "length": 3 * BLOCK}]}, NBDINFO,
                                     [{"offset": 5 * MIB + 1, "length": 3 * BLOCK - 2}]], ids=["ours", "nbdinfo", "unaligned"])
def test_changed_sends_only_what_is_listed(host, pki, folder, grown, content):
    source, expected = grown
    expected[5 * MIB:5 * MIB + 3 * BLOCK] = source.read_bytes()[5 * MIB:5 * MIB + 3 * BLOCK]
    result = harness.send(host, pki, source, "disk", changed=extents_file(folder, content), compress="off")
    assert result["bytes_read"] == result["payload_bytes"] == 3 * BLOCK
    assert result["blocks_changed"] == 3
    assert host.path("disk").read_bytes() == expected
    assert expect_good_send(host, pki, source, "disk")["blocks_changed"] == 3  # what the list left out
    harness.run("cmp", source, host.path("disk"))


def test_changed_with_full_verification_notices_an_incomplete_list(host, pki, folder, grown):
    source, old = grown
    listed = extents_file(folder, [{"offset": 5 * MIB, "length": 3 * BLOCK}])
    error = refused(host, pki, source, "disk", "verify.root_differs", changed=listed, verify="full")
    assert "--verify full" in error["fix"]
    assert not host.path("disk").exists()
    assert harness.cancel(host, pki, "disk")["cancelled"] is True
    assert host.path("disk").read_bytes() == old


def test_an_empty_list_changes_nothing(host, pki, folder, grown):
    source, old = grown
    result = harness.send(host, pki, source, "disk", changed=extents_file(folder, []))
    assert result["bytes_read"] == result["payload_bytes"] == 0
    assert host.path("disk").read_bytes() == old


@pytest.mark.parametrize("content", ["", "{", "17", "{\"extents\": 1}", "[1]", "[{\"offset\": 0}]", "[{\"offset\": -1, \"length\": 4}]",
                                     "[{\"offset\": 0, \"length\": 1.5}]", "[{\"offset\": \"0\", \"length\": 4096}]",
                                     f"[{{\"offset\": 0, \"length\": {25 * MIB}}}]",
                                     "[{\"offset\": 18446744073709551615, \"length\": 4096}]",
                                     "[{\"offset\": 4096, \"length\": 18446744073709551615}]",
                                     "[" * 5000], ids=str)
def test_a_malformed_list_is_refused(host, pki, folder, grown, content):
    source, _ = grown
    before = tree(host.store)
    refused(host, pki, source, "disk", "source.bad_extents", changed=extents_file(folder, content))
    left = tree(host.store)
    if left != before:  # found only when the disk's size was known: the way back is there
        harness.cancel(host, pki, "disk")
        assert {name: what for name, what in tree(host.store).items() if name.endswith("/disk")} == \
            {name: what for name, what in before.items() if name.endswith("/disk")}


def test_changed_needs_a_list_and_a_disk(host, pki, folder, grown):
    source, _ = grown
    refused(host, pki, source, "disk", "source.bad_extents", changed=folder / "none.json")
    refused(host, pki, source, "other", "target.no_base", changed=extents_file(folder, []))
    assert not host.path("other").exists()


# Options -----------------------------------------------------------------------------------------------------------

FIELDS = {"disk_bytes": int, "bytes_read": int, "blocks_compared": int, "blocks_changed": int, "payload_bytes": int,
          "wire_bytes": int, "resumed_bytes": int, "epoch": int, "retries": int, "seconds": float, "format": str, "staging": str,
          "compared_by": str}


@pytest.mark.parametrize("sync", ["full", "delta"])
@pytest.mark.parametrize("verify", ["none", "written", "full"])
def test_every_field_is_there_however_it_is_verified(host, pki, folder, seed, sync, verify):
    source = harness.make_image(folder / "source.raw", 9 * MIB + 512, "mixed", seed)
    harness.make_image(host.path("disk"), 9 * MIB + 512, "mixed", seed + 1)
    result = harness.send(host, pki, source, "disk", sync=sync, verify=verify)
    for name, kind in FIELDS.items():
        assert isinstance(result[name], kind), (name, result)
    assert result["disk_bytes"] == 9 * MIB + 512
    assert (result["root_digest_target"] is None) == (verify == "none")
    if verify != "none":
        assert result["root_digest_source"] == result["root_digest_target"] == harness.digest(source)
    harness.run("cmp", source, host.path("disk"))
    assert result["compared_by"] == ("sha256" if sync == "delta" else "nothing")


@pytest.mark.parametrize("verify", ["none", "written", "full"])
def test_a_delta_by_tags_sends_what_one_by_digests_would(host, pki, folder, seed, verify):
    source = harness.make_image(folder / "source.raw", 40 * MIB + 512, "mixed", seed)
    sent = {}
    for by in ("sha256", "gmac"):
        harness.make_image(host.path(by), 40 * MIB + 512, "mixed", seed)
        harness.change_blocks(host.path(by), 0.2, seed)
        result = harness.send(host, pki, source, by, compare_by=by, verify=verify)
        assert result["compared_by"] == by
        sent[by] = [result[name] for name in ("blocks_changed", "blocks_compared", "payload_bytes", "bytes_read")]
        harness.run("cmp", source, host.path(by))
        for end in ("root_digest_source", "root_digest_target"):
            known = verify == "full" or (verify == "written" and by == "sha256")
            if end == "root_digest_source" and by == "sha256":
                known = True  # all of it was read and digested
            assert result[end] == (harness.digest(source) if known else None), (by, result)
    assert sent["gmac"] == sent["sha256"] and sent["gmac"][0] > 0
    # What the tags left behind is no digest: a delta after it finds the same, and proves the whole disk.
    harness.change_blocks(source, 0.1, seed + 1)
    for by in ("sha256", "gmac"):
        result = expect_good_send(host, pki, source, by)
        assert result["root_digest_source"] == harness.digest(source)
        harness.run("cmp", source, host.path(by))


def test_compression_shrinks_what_can_shrink(host, pki, folder):
    source = folder / "source.raw"
    source.write_bytes((b"the same line of text, over and over\n" * (16 * MIB // 37 + 1))[:16 * MIB])
    wire = {}
    # `auto` compresses only while the link binds: a limit makes it bind, on any machine.
    for mode, options in (("off", {}), ("zstd", {}), ("auto", {"limit": "8M"})):
        result = expect_good_send(host, pki, source, f"disk-{mode}", sync="full", compress=mode, **options)
        wire[mode] = result["wire_bytes"]
        harness.run("cmp", source, host.path(f"disk-{mode}"))
    assert wire["off"] >= 16 * MIB and wire["zstd"] <= MIB and wire["auto"] <= 8 * MIB, wire


def test_compression_by_choice_never_costs_wire_bytes(host, pki, folder):
    source = fill(folder / "source.raw", 8 * MIB)
    result = expect_good_send(host, pki, source, "disk", sync="full", compress="auto")
    assert 8 * MIB <= result["wire_bytes"] <= 8.2 * MIB


def test_compression_of_noise_costs_next_to_nothing(host, pki, folder):
    source = fill(folder / "source.raw", 8 * MIB)
    result = expect_good_send(host, pki, source, "disk", sync="full", compress="zstd")
    assert 8 * MIB <= result["wire_bytes"] <= 8.2 * MIB


def test_a_limit_slows_down(host, pki, folder, seed):
    source = harness.make_image(folder / "source.raw", 12 * MIB, "dense", seed)
    result = expect_good_send(host, pki, source, "disk", sync="full", limit="4M", compress="off", lanes=4)
    assert result["seconds"] >= 1.5  # 3 s, less the first burst and what the lanes have read ahead


@pytest.mark.parametrize("lanes", [1, 5, 16])
def test_any_number_of_lanes(host, pki, folder, seed, lanes):
    source = harness.make_image(folder / "source.raw", 40 * MIB, "mixed", seed)
    expect_good_send(host, pki, source, "disk", sync="full", lanes=lanes)
    harness.change_blocks(source, 0.05, seed)
    expect_good_send(host, pki, source, "disk", lanes=lanes)
    harness.run("cmp", source, host.path("disk"))


# Block devices -----------------------------------------------------------------------------------------------------

@pytest.fixture
def device(host, folder, seed):
    """A loop device of 16 MiB in the store as "device" and its path outside; gone afterwards."""
    image = harness.make_image(folder / "device.raw", 16 * MIB, "dense", seed + 1)
    done = harness.run("losetup", "--find", "--show", image, check=False)
    if done.returncode != 0:
        pytest.skip(f"no loop devices here: {done.stderr}")
    path = done.stdout.strip()
    facts = os.stat(path)
    # A node of its own: a symbolic link to /dev would leave the store.
    os.mknod(host.path("device"), facts.st_mode, facts.st_rdev)
    yield path
    if host.process is not None:
        host.stop()
    harness.run("losetup", "-d", path)


def test_a_block_device_is_written_in_place_and_can_be_cancelled(host, pki, folder, seed, device):
    source = harness.make_image(folder / "source.raw", 16 * MIB, "mixed", seed)
    old = folder / "old.raw"
    harness.run("cp", device, old)
    with harness.sending(host, pki, source, "device", limit="2M", compress="off") as sender:
        harness.wait_until(lambda: harness.run("cmp", device, old, check=False).returncode != 0, what="the first write")
        sender.kill()
    assert harness.cancel(host, pki, "device")["cancelled"] is True
    harness.run("cmp", device, old)
    for sync in ("delta", "full"):
        result = expect_good_send(host, pki, source, "device", sync=sync)
        assert result["staging"].startswith("undo") and result["format"] == "raw"
        harness.run("cmp", device, source)
        assert harness.digest(device) == result["root_digest_target"]
        harness.change_blocks(source, 0.3, seed)
    assert harness.cancel(host, pki, "device")["cancelled"] is False


def test_a_block_device_of_another_size_or_format_is_left_alone(host, pki, folder, seed, device):
    before = harness.digest(device)
    small = harness.make_image(folder / "small.raw", 12 * MIB, "mixed", seed)
    large = harness.make_image(folder / "large.raw", 20 * MIB, "mixed", seed)
    fitting = harness.make_image(folder / "fitting.raw", 16 * MIB, "mixed", seed)
    refused(host, pki, large, "device", "target.too_small")
    refused(host, pki, small, "device", "target.size_differs")
    for sync in ("full", "delta"):
        refused(host, pki, fitting, "device", "target.format_differs", sync=sync, format="vhdx")
    assert harness.digest(device) == before


def test_a_mounted_block_device_is_refused(host, pki, folder, seed, device):
    harness.run("mkfs.ext4", "-q", device)
    source = harness.make_image(folder / "source.raw", 16 * MIB, "mixed", seed)
    with harness.mounted(["mount", device], folder / "point"):
        refused(host, pki, source, "device", "io.busy")
    expect_good_send(host, pki, source, "device")


def test_a_block_device_as_source(host, pki, folder, device):
    for disk in ("disk.raw", "disk.vhdx"):
        result = expect_good_send(host, pki, device, disk)
        assert result["root_digest_source"] == harness.digest(host.path(disk)) == harness.digest(folder / "device.raw")
    harness.run("cmp", device, host.path("disk.raw"))


def test_the_digest_is_the_content_s_whatever_holds_it(host, pki, folder, device):
    image = folder / "device.raw"
    expected = harness.digest(image)
    harness.run("cp", "--sparse=never", image, folder / "dense.raw")
    harness.run("cp", "--sparse=always", image, folder / "sparse.raw")
    for disk, disk_format in (("a", "raw"), ("b", "vhdx"), ("c", "vhdx-fixed")):
        assert expect_good_send(host, pki, image, disk, format=disk_format, sync="full")["root_digest_target"] == expected
    found = {path: harness.digest(path) for path in (device, folder / "dense.raw", folder / "sparse.raw", host.path("a"),
                                                     host.path("b"), host.path("c"))}
    assert set(found.values()) == {expected}, found
    plain = harness.run(harness.program(), "digest", image)
    assert plain.stdout == expected + "\n"


def test_digest_of_what_is_no_disk(folder):
    (folder / "folder").mkdir()
    damaged = folder / "damaged.vhdx"
    damaged.write_bytes(b"vhdxfile" + bytes(4 * MIB))
    for path, code in ((folder / "none", "io.not_found"), (folder / "folder", "io.not_a_disk")):
        expect_error(harness.run(harness.program(), "digest", path, "--json", check=False), code)
    done = harness.run(harness.program(), "digest", damaged, "--json", check=False)
    assert done.returncode == 1 and harness.last_json(done.stdout)["error"]["code"].startswith("vhdx.")
