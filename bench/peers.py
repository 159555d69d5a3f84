"""The peers as packaged, each at its best settings: what they copy is the same, and so is what their time covers.

Over TLS and ssh both ends run here, as ours do. Each call returns a Sample after the target is durable (`sync FILE`, where
the program does not do that itself).
"""
import contextlib
import pathlib
import shutil
import socket
import subprocess
import time

import bed as beds
import harness
from measure import Failed, Sample, timed


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextlib.contextmanager
def daemon(command, port, env=None):
    """A server in the foreground; gives its process id once it answers on the port."""
    process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, env=env)
    try:
        deadline = time.monotonic() + 30
        while True:
            if process.poll() is not None:
                raise Failed(f"{command[0]}: exit {process.returncode}: {process.stderr.read().decode()[-500:]}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
                break
            if time.monotonic() > deadline:
                raise Failed(f"{command[0]} does not listen")
            time.sleep(0.02)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stderr.close()


def nbd_certificates(bed):
    """Our lab's certificates under the names that QEMU and libnbd look for."""
    folder = bed.folder / "nbd"
    if not folder.exists():
        folder.mkdir()
        for role, node in (("server", bed.pki.host), ("client", bed.pki.appliance)):
            shutil.copy(node / "ca.crt", folder / "ca-cert.pem")
            shutil.copy(node / "node.crt", folder / f"{role}-cert.pem")
            shutil.copy(node / "node.key", folder / f"{role}-key.pem")
    return folder


def then_sync(command, *targets):
    return ["sh", "-c", '"$@" && sync ' + " ".join(f"'{target}'" for target in targets), "sh", *map(str, command)]


def qemu_img(bed, source, target, direct):
    """qemu-img convert to qemu-nbd over TLS, both ends with certificates; 16 requests in flight, out of order."""
    beds.need("qemu-img", "qemu-nbd")
    tls, port = nbd_certificates(bed), free_port()
    server = ["qemu-nbd", "--object", f"tls-creds-x509,id=t,dir={tls},endpoint=server,verify-peer=yes", "--tls-creds", "t", "-f",
              "raw", "-t", "-e", "16", "-b", "127.0.0.1", "-p", port, "--discard=unmap",
              *(["--cache=none", "--aio=io_uring"] if direct else ["--cache=writeback"]), target]
    with daemon(server, port) as pid:
        client = ["qemu-img", "convert", "-n", "-W", "-m", "16", *(["-T", "none"] if direct else []), "-f", "raw", "--object",
                  f"tls-creds-x509,id=t,dir={tls},endpoint=client", source, "--target-image-opts",
                  f"driver=nbd,host=127.0.0.1,port={port},tls-creds=t"]
        wall, cpu, _, *_ = timed(then_sync(client, target), daemons=[pid])
    return Sample(wall, cpu, harness.allocated_bytes(source))


def nbdcopy(bed, source, target, direct):
    """nbdcopy to nbdkit's file plugin over TLS, both ends with certificates, 4 connections."""
    beds.need("nbdcopy", "nbdkit")
    tls, port = nbd_certificates(bed), free_port()
    server = ["nbdkit", "-f", "-i", "127.0.0.1", "-p", port, "--tls=require", f"--tls-certificates={tls}", "--tls-verify-peer",
              "-t", "16", "file", f"file={target}", *(["cache=none"] if direct else [])]
    with daemon(server, port) as pid:
        url = f"nbds://127.0.0.1:{port}/?tls-certificates={tls}"
        client = ["nbdcopy", "--connections=4", "--requests=64", "--flush", source, url]
        wall, cpu, _, *_ = timed(then_sync(client, target), daemons=[pid])
    return Sample(wall, cpu, harness.allocated_bytes(source))


class Ssh:
    """A throw-away sshd on the loopback with keys of its own; the fastest cipher of both ends."""
    CIPHER = "aes128-gcm@openssh.com"

    def __init__(self, folder):
        self.folder, self.stack = pathlib.Path(folder) / "ssh", contextlib.ExitStack()

    def __enter__(self):
        beds.need("sshd", "ssh", "ssh-keygen")
        self.folder.mkdir(mode=0o700)
        for name in ("host_key", "user_key"):
            harness.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name)
        shutil.copy(self.folder / "user_key.pub", self.folder / "authorized_keys")
        self.port = free_port()
        pathlib.Path("/run/sshd").mkdir(exist_ok=True)  # privilege separation wants it, and no boot made it here
        (self.folder / "config").write_text(
            f"HostKey {self.folder}/host_key\nAuthorizedKeysFile {self.folder}/authorized_keys\nStrictModes no\nUsePAM no\n"
            f"PermitRootLogin prohibit-password\nPasswordAuthentication no\nPidFile none\nMaxStartups 100\n"
            f"ListenAddress 127.0.0.1\nPort {self.port}\nCiphers {self.CIPHER}\n")
        self.pid = self.stack.enter_context(daemon([beds.which("sshd"), "-D", "-f", self.folder / "config"], self.port))
        return self

    def __exit__(self, *trace):
        return self.stack.__exit__(*trace)

    def words(self):
        return (f"ssh -p {self.port} -i {self.folder}/user_key -o IdentitiesOnly=yes -o StrictHostKeyChecking=no "
                f"-o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o Compression=no -c {self.CIPHER} -F none")


def rsync(ssh, source, target, *options):
    beds.need("rsync")
    command = ["rsync", "--inplace", "--no-times", "--ignore-times", *options, "-e", ssh.words(), source, f"127.0.0.1:{target}"]
    wall, cpu, _, *_ = timed(then_sync(command, target), forking=[ssh.pid])
    return Sample(wall, cpu, harness.allocated_bytes(source))


def rsync_whole(ssh, source, target):
    return rsync(ssh, source, target, "--whole-file", "--sparse")


def rsync_delta(ssh, source, target, block):
    return rsync(ssh, source, target, "--no-whole-file", f"--block-size={block}")


def cp(source, target):
    """No network, no encryption, no digest: what a copy costs at least."""
    wall, cpu, _, *_ = timed(then_sync(["cp", "--sparse=auto", "--reflink=never", source, target], target))
    return Sample(wall, cpu, harness.allocated_bytes(source))


class Casync:
    """casync keeps a store of chunks: a delta is `make` at the source (new chunks only) and `extract` with the old disk as
    seed. No network and no encryption; the store starts with the old disk's chunks."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder) / "casync"

    def begin(self, source):
        beds.need("casync")
        if not self.folder.exists():
            self.folder.mkdir()
            self.make(source)

    def make(self, source):
        return timed(["casync", "make", f"--store={self.folder}/chunks", self.folder / "disk.caibx", source])

    def delta(self, source, target):
        self.begin(source)
        one_wall, one_cpu, _, *_ = self.make(source)
        command = ["casync", "extract", f"--store={self.folder}/chunks", f"--seed={target}", self.folder / "disk.caibx",
                   target.with_name("casync.raw")]
        two_wall, two_cpu, _, *_ = timed(then_sync(command, target.with_name("casync.raw")))
        target.with_name("casync.raw").unlink()
        return Sample(one_wall + two_wall, one_cpu + two_cpu, harness.allocated_bytes(source))
