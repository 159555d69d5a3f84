"""Our TLS streams and OpenSSL's own programs understand each other, whichever end they are, whose records ours are, and
however often the keys change on the way."""
import pathlib
import re
import subprocess
import threading

import harness
import pytest

RECORDS = ["auto", "auto/3", "openssl", "openssl/3"]
SUITES = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
TOOL = pathlib.Path(harness.program()).with_name("tls_peer")


class Talker:
    """A program with its output read as it comes."""

    def __init__(self, *words):
        self.process = subprocess.Popen([str(w) for w in words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)
        self.lock = threading.Lock()
        self.heard, self.errors = b"", b""
        self.readers = [threading.Thread(target=self._read, args=part, daemon=True)
                        for part in ((self.process.stdout, "heard"), (self.process.stderr, "errors"))]
        for reader in self.readers:
            reader.start()

    def _read(self, pipe, name):
        while chunk := pipe.read1(65536):
            with self.lock:
                setattr(self, name, getattr(self, name) + chunk)

    def say(self, text):
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def wait_for(self, text):
        harness.wait_until(lambda: text in self.heard or self.process.poll() is not None, what=f"{text!r}")
        harness.wait_until(lambda: text in self.heard, what=f"{text!r} in {self.heard[-500:]!r}, {self.errors[-500:]!r}")

    def wait_for_match(self, pattern):
        harness.wait_until(lambda: re.search(pattern, self.heard), what=f"{pattern!r}")
        return re.search(pattern, self.heard)[1]

    def end(self):
        """Its last words: all of stderr."""
        if not self.process.stdin.closed:
            self.process.stdin.close()
        self.process.wait(60)
        for reader in self.readers:
            reader.join(60)
        return self.errors.decode(errors="replace")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.end()
        self.process.stdout.close()
        self.process.stderr.close()


def credentials(node):
    return ["-CAfile", node / "ca.crt", "-cert", node / "node.crt", "-key", node / "node.key", "-verify_return_error", "-tls1_3",
            "-alpn", "http/1.1"]


def expected_layer(records, suite):
    return "libipsec-mb" if records.startswith("auto") and "GCM" in suite else "openssl"


def lines(count, label):
    """Digits alone, so that no piece begins with one of the programs' command letters."""
    return b"".join(b"%d%030d\n" % (label, i) for i in range(count))


# The program takes a key letter only at the beginning of what it reads at once, so each is said alone and its effect
# awaited: the program says so, and what was said before has come back.
@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("records", RECORDS)
def test_s_client_is_served_and_may_change_keys(pki, records, suite):
    with Talker(TOOL, "serve", pki.host, records) as ours:
        port = int(ours.wait_for_match(rb"(\d+)\n"))
        with Talker("openssl", "s_client", "-connect", f"127.0.0.1:{port}", *credentials(pki.appliance),
                    "-ciphersuites", suite) as client:
            client.say(b"1 first\n")
            client.wait_for(b"1 first\n")
            for turn, letter in enumerate([b"K", b"k", b"K", b"K", b"k"]):
                client.say(letter + b"\n")
                harness.wait_until(lambda: client.heard.count(b"KEYUPDATE") + client.errors.count(b"KEYUPDATE") > turn,
                                   what="s_client's word that it changed its key")
                line = b"2 after key update %d\n" % turn
                client.say(line)
                client.wait_for(line)
            much = lines(4000, 3)
            client.say(much)
            client.wait_for(much[-31:])
            assert much in client.heard.replace(b"Read BLOCK\n", b"")
            client.say(b"Q\n")
            assert "error" not in client.end()
        assert ours.end().strip() == f"{expected_layer(records, suite)} transport.closed"


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("records", RECORDS)
def test_s_server_is_dialled_and_may_change_keys(pki, records, suite):
    # stdbuf: it keeps what it says of key updates to itself otherwise.
    with Talker("stdbuf", "-o0", "openssl", "s_server", "-accept", "127.0.0.1:0", *credentials(pki.host), "-Verify", "1",
                "-ciphersuites", suite) as server:
        port = int(server.wait_for_match(rb"ACCEPT 127\.0\.0\.1:(\d+)"))
        with Talker(TOOL, "dial", pki.appliance, records, port) as ours:
            much = lines(4000, 3)
            ours.say(much)
            ours.process.stdin.close()  # from here on it reads
            server.wait_for(much[-31:])
            assert much in server.heard.replace(b"Read BLOCK\n", b"")
            for turn, letter in enumerate([b"K", b"k", b"K"]):
                server.say(letter + b"\n")
                harness.wait_until(lambda: server.heard.count(b"SSL_do_handshake -> 1") > turn,
                                   what="s_server's word that it changed its key")
                line = b"2 after key update %d\n" % turn
                server.say(line)
                ours.wait_for(line)
            server.say(lines(4000, 4))
            ours.wait_for(lines(4000, 4))
            server.say(b"Q\n")
            server.end()
            # It closes its socket and says no goodbye.
            assert ours.end().strip() == f"{expected_layer(records, suite)} transport.lost"


@pytest.mark.parametrize("records", RECORDS)
def test_a_peer_killed_is_no_goodbye(pki, records):
    with Talker(TOOL, "serve", pki.host, records) as ours:
        port = int(ours.wait_for_match(rb"(\d+)\n"))
        with Talker("openssl", "s_client", "-connect", f"127.0.0.1:{port}", *credentials(pki.appliance)) as client:
            client.say(b"1 first\n")
            client.wait_for(b"1 first\n")
            client.process.kill()
        assert ours.end().strip() == f"{expected_layer(records, SUITES[0])} transport.lost"
