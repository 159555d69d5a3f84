"""A shell that is given the commands of a document as a reader would paste them."""
import contextlib
import os
import re
import signal
import subprocess
import tempfile
import threading

import harness

BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DONE = "-- block done --"


def blocks_of(document):
    """The ```sh blocks of a document, in order."""
    return BLOCK.findall(document.read_text())


class Shell:
    """Takes one block after the other, with the program in its PATH. A command that fails ends it, and what it started ends with it."""

    def __init__(self, folder):
        self.programs = tempfile.TemporaryDirectory()
        os.symlink(harness.program(), f"{self.programs.name}/backhaul")
        # A network of its own, where it may be had: a document's ports are fixed.
        alone = ["unshare", "-n"] if harness.run("unshare", "-n", "true", check=False).returncode == 0 else []
        self.process = subprocess.Popen([*alone, "bash"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        text=True, bufsize=1, start_new_session=True, env={**os.environ, "PATH": f"{self.programs.name}:{os.environ['PATH']}"})
        self.lines, self.changed, self.daemons = [], threading.Condition(), 0
        threading.Thread(target=self._read, daemon=True).start()
        if alone:
            self.paste("ip link set lo up\n")
        self.paste("set -eo pipefail\n")

    def _read(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line)
                self.changed.notify_all()
        with self.changed:
            self.lines.append(None)
            self.changed.notify_all()

    def wait_for(self, text, count, timeout=120):
        def there():
            return sum(1 for line in self.lines if line and text in line) >= count or None in self.lines
        with self.changed:
            assert self.changed.wait_for(there, timeout), f"no '{text}' in {timeout} s:\n{self.output()}"
            assert sum(1 for line in self.lines if line and text in line) >= count, f"the shell ended:\n{self.output()}"

    def paste(self, block):
        """Comes back when the block is done and its daemons listen."""
        done = sum(1 for line in self.lines if line and DONE in line)
        self.process.stdin.write(f"{block}\necho '{DONE}'\n")
        self.process.stdin.flush()
        self.wait_for(DONE, done + 1)
        self.daemons += len(re.findall(r"&$", block, re.MULTILINE))
        self.wait_for("listening on", self.daemons)

    def output(self):
        return "".join(line for line in self.lines if line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
            self.process.wait(30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.programs.cleanup()
