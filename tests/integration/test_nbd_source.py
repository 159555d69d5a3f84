"""A disk that is only exported by NBD is sent like a file: byte for byte, holes not read, its server's faults named. The
servers are QEMU's and nbdkit, as they come."""
import harness
import pytest
import unfinished
from harness import MIB
from nbd_servers import listening_nbdkit, nbdkit, qemu_nbd, uri

DISK = unfinished.DISK
LIMIT = 8 * MIB  # bytes per second, where a send is to be caught in its middle


def expect_same(host, image):
    harness.run("cmp", image, host.path(DISK))


@pytest.fixture
def host(folder, pki):
    (folder / "store" / DISK).parent.mkdir(parents=True)
    with harness.Host(folder / "store", pki) as running:
        yield running


@pytest.mark.parametrize("clients", [0, 1], ids=["many clients", "one client"])
@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_full_and_delta_from_qemu_are_exact_and_holes_are_not_read(folder, pki, host, seed, image_format, clients):
    raw, image, socket = folder / "source.raw", folder / f"source.{image_format}", folder / "socket"
    harness.make_image(raw, 192 * MIB, "sparse", seed)

    def convert():
        if image_format != "raw":
            harness.run("qemu-img", "convert", "-f", "raw", "-O", image_format, raw, image)

    convert()
    with qemu_nbd(image, socket, image_format, clients):
        first = harness.send(host, pki, uri(socket, "disk"), DISK, sync="full", lanes=4, verify="full")
    expect_same(host, raw)
    assert 0 < first["bytes_read"] <= 2 * harness.allocated_bytes(raw) < raw.stat().st_size / 2

    changed = harness.change_blocks(raw, 0.002, seed)
    convert()
    with qemu_nbd(image, socket, image_format, clients):
        second = harness.send(host, pki, uri(socket, "disk"), DISK, lanes=3)
        digest = harness.backhaul("digest", uri(socket, "disk"))
    expect_same(host, raw)
    assert 0 < second["blocks_changed"] <= len(changed)
    assert digest["root_digest"] == second["root_digest_source"] == harness.backhaul("digest", raw)["root_digest"]


@pytest.mark.parametrize("policy", [(), ("blocksize-minimum=65536", "blocksize-maximum=131072")], ids=["any block", "64 KiB blocks"])
def test_odd_sizes_and_block_sizes_are_respected(folder, pki, host, seed, policy):
    size = 9 * MIB + 12345 if not policy else 9 * MIB + 65536
    image = harness.make_image(folder / "source.raw", size, "mixed", seed)
    filters = ["blocksize-policy"] if policy else []
    arguments = [*policy, "blocksize-preferred=65536", "blocksize-error-policy=error"] if policy else []
    with nbdkit(image, folder / "socket", *filters, arguments=arguments):
        harness.send(host, pki, uri(folder / "socket"), DISK, lanes=2, verify="full")
        expect_same(host, image)
        # Only a part of an extent: reads that begin inside a block of the server.
        harness.change_blocks(image, 0.1, seed + 1)
        harness.send(host, pki, uri(folder / "socket"), DISK, lanes=2)
    expect_same(host, image)


def test_a_server_that_tells_no_holes_and_one_on_the_loopback(folder, pki, host, seed):
    image = harness.make_image(folder / "source.raw", 24 * MIB, "sparse", seed)
    with nbdkit(image, folder / "socket", "noextents"):
        result = harness.send(host, pki, uri(folder / "socket"), DISK)
    expect_same(host, image)
    assert result["bytes_read"] == 24 * MIB
    with listening_nbdkit(image) as port:
        again = harness.send(host, pki, f"nbd://127.0.0.1:{port}", DISK)
    assert again["blocks_changed"] == 0 and again["bytes_read"] < 24 * MIB


def test_what_cannot_be_opened_is_named(folder, pki, host, seed):
    image, socket = harness.make_image(folder / "source.raw", 4 * MIB, "dense", seed), folder / "socket"

    def error_of(source):
        with pytest.raises(harness.SendFailed) as failed:
            harness.send(host, pki, source, DISK)
        with pytest.raises(harness.SendFailed) as digest_failed:
            harness.backhaul("digest", source)
        assert digest_failed.value.error["code"] == failed.value.error["code"]
        return failed.value

    assert error_of(uri(folder / "nowhere")).error["code"] == "nbd.cannot_connect"
    with qemu_nbd(image, socket):
        wrong = error_of(uri(socket, "other")).error
        assert wrong["code"] == "nbd.no_export" and "other" in wrong["cause"]
    assert error_of("nbds://localhost/disk").error["code"] == "nbd.tls"
    assert error_of("nbd://192.0.2.1/disk").error["code"] == "nbd.not_loopback"
    assert error_of("nbd+unix:///disk").error["code"] == "nbd.bad_uri"
    for secret in ("nbd://user:hidden@localhost/disk", f"{uri(socket)}&tls-psk-file=hidden"):
        failed = error_of(secret)
        assert failed.error["code"] == "nbd.bad_uri" and "hidden" not in failed.stdout + failed.stderr
    assert error_of("nbd:disk").error["code"] == "io.not_found", "anything else is a path"


def test_an_extent_that_cannot_be_read_is_named_and_a_repaired_source_goes_on(folder, pki, host, seed):
    old = harness.make_image(host.path(DISK), 48 * MIB, "dense", seed)
    before = (folder / "before.raw")
    harness.copy_sparse(old, before)
    image, socket, trigger = harness.make_image(folder / "source.raw", 48 * MIB, "dense", seed + 1), folder / "socket", folder / "broken"
    trigger.touch()
    with nbdkit(image, socket, "error", arguments=["error-pread=EIO", "error-pread-rate=100%", f"error-file={trigger}"]):
        with pytest.raises(harness.SendFailed) as failed:
            harness.send(host, pki, uri(socket), DISK, lanes=2)
        error = failed.value.error
        assert error["code"] == "source.read_failed" and "at " in error["cause"] and "Input/output error" in error["cause"]
        with pytest.raises(harness.SendFailed) as failed:
            harness.backhaul("digest", uri(socket))
        assert failed.value.error["code"] == "io.device_error" and "extent at " in failed.value.error["cause"]
        assert harness.cancel(host, pki, DISK)["cancelled"]
        harness.run("cmp", before, host.path(DISK))
        trigger.unlink()
        harness.send(host, pki, uri(socket), DISK, lanes=2)
    expect_same(host, image)


@pytest.mark.parametrize("clients", [0, 1], ids=["many clients", "one client"])
def test_a_server_that_dies_is_named_and_a_second_send_resumes(folder, pki, host, seed, clients):
    size = 96 * MIB
    harness.make_image(host.path(DISK), size, "dense", seed)
    image, socket = harness.make_image(folder / "source.raw", size, "dense", seed + 1), folder / "socket"
    with qemu_nbd(image, socket, clients=clients) as server:
        with harness.sending(host, pki, uri(socket, "disk"), DISK, lanes=2, staging="undo", limit=LIMIT) as sender:
            recorded = lambda: unfinished.recorded_bytes(host.store)
            harness.wait_until(lambda: recorded() > 0 or sender.poll() is not None, 120, "a part of the disk on record")
            server.kill()
            out, errors = sender.communicate(timeout=120)
            safe = recorded()
    assert sender.returncode != 0
    error = harness.last_json(out)["error"]
    assert error["code"] == "nbd.server_gone" and error["fix"], f"{out}{errors}"
    with qemu_nbd(image, socket, clients=clients):
        result = harness.send(host, pki, uri(socket, "disk"), DISK, lanes=2, staging="undo")
    expect_same(host, image)
    assert result["resumed_bytes"] >= safe > 0
