"""NBD servers as they come, QEMU's and nbdkit, killed at the end."""
import contextlib
import os
import socket as socket_module
import subprocess

import harness


@contextlib.contextmanager
def serving(*command, socket):
    """A server on a Unix socket, killed at the end."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(socket)
    process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True)
    try:
        harness.wait_until(lambda: os.path.exists(socket) or process.poll() is not None, 60, "the NBD server's socket")
        assert process.poll() is None, process.stderr.read()
        yield process
    finally:
        process.kill()
        process.communicate()


def qemu_nbd(image, socket, image_format="raw", clients=0, name="disk"):
    """`clients` 1 is qemu-nbd's default: it does not even accept a second connection."""
    return serving("qemu-nbd", "-r", "-t", "-e", clients, "-x", name, "-f", image_format, "-k", socket, image, socket=socket)


def nbdkit(image, socket, *filters, arguments=()):
    return serving("nbdkit", "-f", "-r", "-U", socket, *[f"--filter={name}" for name in filters], "file", image, *arguments,
                   socket=socket)


@contextlib.contextmanager
def listening_nbdkit(image):
    """On a free port of the loopback, which it is handed open (as systemd does)."""
    with socket_module.create_server(("127.0.0.1", 0)) as listener:
        command = 'exec 3<&"$1"; LISTEN_PID=$$ LISTEN_FDS=1 exec nbdkit -f -r file "$2"'
        process = subprocess.Popen(["bash", "-c", command, "bash", str(listener.fileno()), str(image)],
                                   pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL)
        try:
            yield listener.getsockname()[1]
        finally:
            process.kill()
            process.wait()


def uri(socket, name=""):
    return f"nbd+unix:///{name}?socket={socket}"
