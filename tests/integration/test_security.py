"""Who may not come in does not, is told why, and leaves everything as it was; the next good run succeeds."""
import os
import pathlib
import shutil
import ssl

import certificates
import harness
import pytest
from harness import MIB
from refusal import expect_error, expect_good_send, refused, tree

PAST = {"start": "20200101000000Z", "end": "20210101000000Z"}
FUTURE = {"start": "20390101000000Z", "end": "20400101000000Z"}


@pytest.fixture(scope="module")
def issuer(pki, tmp_path_factory):
    return certificates.Issuer(pki.directory, tmp_path_factory.mktemp("issuer") / "records")


@pytest.fixture(scope="module")
def other_pki(tmp_path_factory):
    return harness.make_pki(tmp_path_factory.mktemp("other") / "pki")


@pytest.fixture(scope="module")
def bad_nodes(issuer):
    return {
        "expired": issuer.issue("expired", **PAST),
        "not yet valid": issuer.issue("future", **FUTURE),
        "server only": issuer.issue("server-only", usage="serverAuth"),
        "client only": issuer.issue("client-only", usage="clientAuth"),
        "no usage": issuer.issue("no-usage", usage=None),
        "other name": issuer.issue("other-name", names="DNS:elsewhere.example,IP:192.0.2.1"),
    }


@pytest.fixture
def source(folder, seed):
    return harness.make_image(folder / "source.raw", 3 * MIB, "mixed", seed)


@pytest.fixture
def settled(host, pki, source):
    """The host agent with one disk; afterwards that disk must be as it was and a good send must still go through."""
    shutil.copy(source, host.path("kept"))
    before = tree(host.store)
    yield host
    assert tree(host.store) == before
    expect_good_send(host, pki, source, "later")
    harness.run("cmp", source, host.path("later"))


class AsHost:
    """A port where harness.send_words() expects a Host."""

    def __init__(self, port):
        self.port = port

    def url(self, disk):
        return f"backhaul://127.0.0.1:{self.port}/{disk}"


# What the host agent refuses ---------------------------------------------------------------------------------------

def test_a_client_without_a_certificate_is_refused(settled, pki):
    client = certificates.context("client", pki.appliance, with_certificate=False)
    assert "alert certificate required" in certificates.how_the_host_refuses(settled.port, client)
    harness.wait_until(lambda: "certificate" in settled.log(), what="a line about it in the log")


def test_a_client_of_another_ca_is_refused(settled, pki, other_pki, folder, source):
    mixed = folder / "mixed"  # trusts our CA, shows another one's certificate
    shutil.copytree(other_pki.appliance, mixed)
    shutil.copy(pki.appliance / "ca.crt", mixed / "ca.crt")
    error = refused(settled, pki, source, "new", "transport.tls_unknown_ca", tls=mixed)
    assert "refused our certificate" in error["cause"]


@pytest.mark.parametrize("what,alert,code", [
    ("expired", "certificate expired", "transport.tls_certificate_expired"),
    ("not yet valid", "bad certificate", "transport.tls_certificate_expired"),
    ("server only", "unsupported certificate", "transport.tls_bad_certificate"),
    ("no usage", "unsupported certificate", "transport.tls_bad_certificate"),
])
def test_a_client_certificate_that_is_no_good_is_refused(settled, bad_nodes, what, alert, code):
    found = certificates.how_the_host_refuses(settled.port, certificates.context("client", bad_nodes[what]))
    assert f"alert {alert}" in found
    harness.wait_until(lambda: code in settled.log(), what="a line about it in the log")


def test_a_client_with_tls_1_2_is_refused(settled, pki):
    client = certificates.context("client", pki.appliance, version=ssl.TLSVersion.TLSv1_2)
    assert "alert protocol version" in certificates.how_the_host_refuses(settled.port, client)
    done = harness.run("openssl", "s_client", "-connect", f"127.0.0.1:{settled.port}", "-tls1_2", check=False, input="")
    assert done.returncode != 0 and "alert protocol version" in done.stderr


def test_a_client_with_a_foreign_protocol_is_refused(settled, pki):
    client = certificates.context("client", pki.appliance, alpn="h2")
    assert "alert no application protocol" in certificates.how_the_host_refuses(settled.port, client)
    client = certificates.context("client", pki.appliance, alpn=None)
    assert certificates.how_the_host_refuses(settled.port, client) == "closed"


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(70000), os.urandom(5000), b""],
                         ids=["http", "long record", "noise", "nothing"])
def test_junk_on_the_port_harms_nobody(settled, junk):
    import socket
    with socket.create_connection(("127.0.0.1", settled.port), timeout=20) as plain:
        try:
            plain.sendall(junk)
            plain.shutdown(socket.SHUT_WR)
            while plain.recv(4096):
                pass
        except OSError:
            pass


def test_a_revoked_client_is_refused_and_others_are_not(pki, issuer, folder, store, source):
    good, bad = issuer.issue("kept-node"), issuer.issue("revoked-node")
    tls = folder / "tls"
    shutil.copytree(pki.host, tls)
    shutil.copy(issuer.revoke(bad), tls / "crl.pem")
    with harness.Host(store, pki, tls=tls) as host:
        error = refused(host, pki, source, "disk", "transport.tls_certificate_revoked", tls=bad)
        assert "revoked" in error["cause"]
        assert tree(store) == {}
        expect_good_send(host, pki, source, "disk", tls=good)


def test_a_damaged_revocation_list_stops_the_host_agent(pki, folder, store):
    tls = folder / "tls"
    shutil.copytree(pki.host, tls)
    (tls / "crl.pem").write_text("no list\n")
    done = harness.run(harness.program(), "host", "--listen", "127.0.0.1:0", "--store", store, "--tls", tls, check=False)
    assert done.returncode == 1
    assert "transport.tls_credentials" in done.stderr and "crl.pem" in done.stderr and "fix:" in done.stderr


# What the sender refuses -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("what,code", [
    ("expired", "transport.tls_certificate_expired"),
    ("not yet valid", "transport.tls_certificate_expired"),
    ("client only", "transport.tls_bad_certificate"),
    ("no usage", "transport.tls_bad_certificate"),
    ("other name", "transport.tls_wrong_host"),
])
def test_a_host_with_a_certificate_that_is_no_good_gets_nothing(pki, bad_nodes, source, what, code):
    with certificates.server(certificates.context("server", bad_nodes[what])) as port:
        error = refused(AsHost(port), pki, source, "disk", code)
    assert "we refused the certificate" in error["cause"]


def test_a_host_of_another_ca_gets_nothing(pki, other_pki, source, store):
    with harness.Host(store, other_pki) as host:
        error = refused(host, pki, source, "disk", "transport.tls_unknown_ca")
        assert "we refused the certificate" in error["cause"]
        assert tree(store) == {}
        expect_good_send(host, other_pki, source, "disk")


def test_a_revoked_host_gets_nothing(pki, issuer, folder, source, store):
    bad = issuer.issue("revoked-host")
    tls = folder / "tls"
    shutil.copytree(pki.appliance, tls)
    shutil.copy(issuer.revoke(bad), tls / "crl.pem")
    with harness.Host(store, pki, tls=bad) as host:
        refused(host, pki, source, "disk", "transport.tls_certificate_revoked", tls=tls)
        assert tree(store) == {}


def test_a_host_with_tls_1_2_gets_nothing(pki, source):
    with certificates.server(certificates.context("server", pki.host, version=ssl.TLSVersion.TLSv1_2)) as port:
        refused(AsHost(port), pki, source, "disk", "transport.tls_protocol_version")


def test_a_server_of_another_protocol_gets_nothing(pki, source):
    with certificates.server(certificates.context("server", pki.host, alpn="h2")) as port:
        refused(AsHost(port), pki, source, "disk", "transport.alpn_mismatch")


def test_the_name_dialled_must_be_in_the_certificate(settled, pki, issuer, source, store, folder):
    named = issuer.issue("named", names="DNS:localhost")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    with harness.Host(elsewhere, pki, tls=named) as host:
        refused(host, pki, source, "disk", "transport.tls_wrong_host")
        assert tree(elsewhere) == {}
        words = harness.send_words(source, f"backhaul://localhost:{host.port}/disk", pki, {})
        harness.run(*words, "--json")


# One's own credentials ---------------------------------------------------------------------------------------------

def credentials(kind, folder, pki, bad_nodes):
    tls = folder / "own"
    shutil.copytree(bad_nodes["expired"] if kind == "expired" else pki.appliance, tls)
    if kind == "no certificate":
        (tls / "node.crt").unlink()
    elif kind == "no key":
        (tls / "node.key").unlink()
    elif kind == "no ca":
        (tls / "ca.crt").unlink()
    elif kind == "another key":
        shutil.copy(pki.host / "node.key", tls / "node.key")
    elif kind == "damaged":
        (tls / "node.crt").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    return tls


@pytest.mark.parametrize("kind,named", [("no certificate", "node.crt"), ("no key", "node.key"), ("no ca", "ca.crt"),
                                        ("another key", "node.key"), ("damaged", "node.crt"), ("expired", "expired on")])
def test_own_credentials_that_do_not_work_are_named(host, pki, folder, source, bad_nodes, kind, named):
    tls = credentials(kind, folder, pki, bad_nodes)
    error = refused(host, pki, source, "disk", "transport.tls_credentials", tls=tls)
    assert named in error["cause"]
    done = harness.run(harness.program(), "host", "--listen", "127.0.0.1:0", "--store", host.store, "--tls", tls, check=False)
    assert done.returncode == 1 and named in done.stderr


# Paths -------------------------------------------------------------------------------------------------------------

BAD_NAMES = {
    "parent": "../outside/disk",
    "parent in the middle": "vm/../../outside/disk",
    "parent inside": "vm/../kept",
    "only parent": "..",
    "this": ".",
    "absolute": "/{folder}/outside/disk",
    "hidden": ".hidden",
    "hidden folder": ".vm/disk",
    "a session's file": ".kept.backhaul/staged",
    "digests": ".kept.digests",
    "empty part": "vm//disk",
    "ends with a slash": "vm/",
    "newline": "vm\ndisk",
    "escape": "vm\x1b[31mdisk",
    "delete": "vm\x7fdisk",
    "backslash": "..\\outside",
    "long part": "x" * 300,
    "long path": "/".join(["y" * 100] * 60),
    "a folder": "folder",
    "a pipe": "pipe",
    "a link out": "link-to-file",
    "a link to a folder outside": "link-to-folder/disk",
    "a new name behind a link": "link-to-folder/new",
    "an absolute link": "absolute-link",
    "a link that dangles outside": "dangling-out",
    "a link in circles": "circle",
    "a link inside": "link-inside",
    "another name of a disk": "folder-link/kept",
    "a new disk under another name of its folder": "folder-link/new",
    "below a file": "kept/disk",
}


@pytest.fixture
def surrounded(settled, folder, seed):
    """A store with everything in it that could lead out, and a folder outside with a disk."""
    outside = folder / "outside"
    outside.mkdir()
    harness.make_image(outside / "disk", 3 * MIB, "mixed", seed + 1)
    places = {"link-to-file": "../outside/disk", "link-to-folder": "../outside", "absolute-link": str(outside / "disk"),
              "dangling-out": "../outside/none", "circle": "circle", "link-inside": "kept", "folder-link": ".",
              "name\nof\x1btrouble": "kept"}
    for name, target in places.items():
        settled.path(name).symlink_to(target)
    settled.path("folder").mkdir()
    os.mkfifo(settled.path("pipe"))
    settled.stop()
    settled.start()  # none of these keeps the agent from starting
    before = tree(settled.store, outside)
    yield settled
    assert tree(settled.store, outside) == before
    for name in places:
        settled.path(name).unlink()
    settled.path("folder").rmdir()
    settled.path("pipe").unlink()


@pytest.mark.parametrize("sync", ["full", "delta"])
def test_a_name_that_leaves_the_store_is_refused(surrounded, pki, folder, source, sync):
    for what, name in BAD_NAMES.items():
        name = name.format(folder=str(folder).lstrip("/"))
        before = tree(surrounded.store, folder / "outside")
        error = refused(surrounded, pki, source, name,
                        ("target.bad_name", "io.outside_store", "io.not_a_disk", "io.failed", "io.exists"), sync=sync)
        assert "\n" not in error["cause"] and "\x1b" not in error["cause"], what
        assert tree(surrounded.store, folder / "outside") == before, f"{what} changed something"


def test_cancel_of_a_name_that_leaves_the_store_is_refused(surrounded, pki, folder):
    before = tree(surrounded.store, folder / "outside")
    for what, name in BAD_NAMES.items():
        name = name.format(folder=str(folder).lstrip("/"))
        done = harness.run(harness.program(), "cancel", surrounded.url(name), "--tls", pki.appliance, "--json", check=False)
        if done.returncode == 0:  # a name that could be a disk's, but there is no session
            assert harness.last_json(done.stdout)["cancelled"] is False, what
        else:
            expect_error(done, ("target.bad_name", "io.outside_store", "io.not_a_disk", "io.failed"))
        assert tree(surrounded.store, folder / "outside") == before, what


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/disk", "backhaul://127.0.0.1/disk", "backhaul://127.0.0.1:1",
                                 "backhaul://127.0.0.1:0/disk", "backhaul://127.0.0.1:65536/disk", "backhaul://:1/disk",
                                 "backhaul://127.0.0.1:x/disk", "disk", ""])
def test_a_target_that_is_no_url_is_refused_before_anything_is_dialled(pki, source, url):
    done = harness.run(harness.program(), "send", source, url, "--tls", pki.appliance, "--json", check=False)
    error = expect_error(done, "target.bad_url", exit_code=done.returncode)
    assert done.returncode in (1, 2) and "backhaul://HOST:PORT/DISK" in error["message"] + error["fix"]


# Secrets -----------------------------------------------------------------------------------------------------------

def key_material(pki):
    """Pieces of every private key, in the spellings that a careless log could have."""
    pieces = {"PRIVATE KEY"}
    for path in pathlib.Path(pki.directory).rglob("*.key"):
        body = "".join(line for line in path.read_text().splitlines() if not line.startswith("-"))
        pieces |= {body[i:i + 24] for i in range(0, len(body) - 24, 24)}
        text = harness.run("openssl", "pkey", "-in", path, "-noout", "-text").stdout
        raw = "".join(text.split("priv:")[1].split("pub:")[0].split()).replace(":", "")
        pieces |= {raw[-48:], raw[-48:].upper(), ":".join(raw[-32:][i:i + 2] for i in range(0, 32, 2))}
    return pieces


def test_no_log_and_no_message_holds_a_secret(pki, other_pki, store, source):
    said = []
    with harness.Host(store, pki) as host:
        for options in ({}, {"tls": other_pki.appliance}, {"format": "vhdx"}):
            words = harness.send_words(source, host.url("disk"), pki, options)
            done = harness.run(words[0], "-v", *words[1:], check=False)
            said += [done.stdout, done.stderr]
        done = harness.run(harness.program(), "pki", "show", pki.directory, "--json")
        said += [done.stdout, done.stderr]
    text = "\n".join(said) + host.log()
    assert len(text) > 1000
    leaked = [piece for piece in key_material(pki) if piece in text]
    assert not leaked


def test_private_keys_are_for_their_owner_only(pki):
    keys = list(pathlib.Path(pki.directory).rglob("*.key"))
    assert len(keys) == 3
    assert all(key.stat().st_mode & 0o077 == 0 for key in keys)
