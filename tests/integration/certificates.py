"""Certificates that `backhaul pki` would never issue: expired, not yet valid, revoked, for the wrong use, of another CA; and
peers made of Python's ssl module that use them. All by the openssl program."""
import contextlib
import pathlib
import shutil
import socket
import ssl
import threading

import harness

CONFIG = """
[ca]
default_ca = a
[a]
dir = {folder}
database = {folder}/index.txt
serial = {folder}/serial
crlnumber = {folder}/crlnumber
new_certs_dir = {folder}
certificate = {authority}/ca.crt
private_key = {authority}/ca.key
default_md = sha256
policy = any
default_crl_days = 30
unique_subject = no
email_in_dn = no
[any]
commonName = supplied
"""

EXTENSIONS = """
[e]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
subjectAltName = {names}
{usage}
"""


class Issuer:
    """Issues from the CA that `pki init` made in `authority`; keeps its records in `folder`."""

    def __init__(self, authority, folder):
        self.authority, self.folder = pathlib.Path(authority), pathlib.Path(folder)
        self.folder.mkdir(parents=True)
        (self.folder / "index.txt").write_text("")
        (self.folder / "serial").write_text("1000\n")
        (self.folder / "crlnumber").write_text("01\n")
        self.config = self.folder / "ca.cnf"
        self.config.write_text(CONFIG.format(folder=self.folder, authority=self.authority))

    def issue(self, name, start="20200101000000Z", end="20400101000000Z", usage="clientAuth,serverAuth",
              names="DNS:localhost,IP:127.0.0.1"):
        """A --tls directory."""
        node = self.folder / name
        node.mkdir()
        extensions = node / "extensions"
        extensions.write_text(EXTENSIONS.format(names=names, usage=f"extendedKeyUsage = {usage}" if usage else ""))
        harness.run("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj",
                    f"/CN={name}", "-keyout", node / "node.key", "-out", node / "request")
        harness.run("openssl", "ca", "-batch", "-notext", "-config", self.config, "-extfile", extensions, "-extensions", "e",
                    "-startdate", start, "-enddate", end, "-in", node / "request", "-out", node / "node.crt")
        shutil.copy(self.authority / "ca.crt", node / "ca.crt")
        (node / "node.key").chmod(0o600)
        return node

    def revoke(self, *nodes):
        """Returns the path of a revocation list with these certificates."""
        for node in nodes:
            harness.run("openssl", "ca", "-batch", "-config", self.config, "-revoke", node / "node.crt")
        path = self.folder / "crl.pem"
        harness.run("openssl", "ca", "-batch", "-config", self.config, "-gencrl", "-out", path)
        return path


def context(role, tls, with_certificate=True, version=ssl.TLSVersion.TLSv1_3, alpn="backhaul/1"):
    """Python's side of a connection, with the credentials of a --tls directory."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if role == "server" else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = made.maximum_version = version
    made.load_verify_locations(tls / "ca.crt")
    if with_certificate:
        made.load_cert_chain(tls / "node.crt", tls / "node.key")
    if alpn:
        made.set_alpn_protocols([alpn])
    return made


def how_the_host_refuses(port, client_context):
    """What OpenSSL says about the alert by which the host agent refuses this client; None if it speaks to it, "closed" if it only
    hangs up. In TLS 1.3 the client believes in its handshake until it reads."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
        try:
            with client_context.wrap_socket(plain, server_hostname="localhost") as stream:
                stream.settimeout(20)
                return None if stream.recv(1) else "closed"
        except ssl.SSLError as error:
            return str(error)  # not its reason: Python does not know all alerts


@contextlib.contextmanager
def server(server_context):
    """A TLS server that does nothing but shake hands; gives its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), server_context.wrap_socket(plain, server_side=True) as stream:
                stream.settimeout(5)
                stream.recv(1)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # wakes the accept(), which would take the next listener's connections
        listener.close()
