"""The example's README, followed literally: every command of its ```sh blocks runs, in order, in one shell, in a copy of the folder."""
import os
import re
import shutil
import signal
import subprocess
import threading

import harness

EXAMPLE = harness.ROOT / "examples" / "files"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DONE = "-- block done --"


class Shell:
    """A shell that is given one block after the other, as a reader would paste them. A command that fails ends it."""

    def __init__(self, folder, programs):
        # A network of its own, where it may be had: the example's ports are fixed.
        alone = ["unshare", "-n"] if harness.run("unshare", "-n", "true", check=False).returncode == 0 else []
        self.process = subprocess.Popen([*alone, "bash"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        text=True, bufsize=1, start_new_session=True, env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"})
        self.lines, self.changed = [], threading.Condition()
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
        done = sum(1 for line in self.lines if line and DONE in line)
        self.process.stdin.write(f"{block}\necho '{DONE}'\n")
        self.process.stdin.flush()
        self.wait_for(DONE, done + 1)

    def output(self):
        return "".join(line for line in self.lines if line)

    def end(self):
        if self.process.poll() is None:
            self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise


def test_the_readme_of_the_example_can_be_followed_literally(folder):
    work, programs = folder / "files", folder / "bin"
    shutil.copytree(EXAMPLE, work)
    programs.mkdir()
    (programs / "backhaul").symlink_to(harness.program())
    blocks = BLOCK.findall((work / "README.md").read_text())
    assert len(blocks) >= 5
    shell, daemons = Shell(work, programs), 0
    try:
        for block in blocks:
            shell.paste(block)
            daemons += len(re.findall(r"&$", block, re.MULTILINE))
            shell.wait_for("listening on", daemons)  # as the README says
    finally:
        try:
            os.killpg(shell.process.pid, signal.SIGTERM) if shell.process.poll() is None and shell.lines[-1] is None else None
            shell.end()
        except (ProcessLookupError, BrokenPipeError):
            pass
    output = shell.output()
    for expected in ("web01 added", "passed", "waits for Complete Failover", "PlanPlannedFailover shop: Succeeded"):
        assert expected in output, f"no '{expected}' in\n{output}"
    # What the reader is told has happened has happened.
    for vm in ("web01", "db01"):
        assert (work / "primary" / "vms" / vm / "state").read_text().strip() == "running"
        assert not (work / "recovery" / "vms" / vm / "state").exists()
    assert b"written at the recovery site" in (work / "primary" / "disks" / "web01-os.img").read_bytes()


def test_nothing_in_the_example_is_absolute():
    for path in EXAMPLE.iterdir():
        text = path.read_text()
        found = re.findall(r"(?<![\w.:/])/(?!usr/bin/env|bin/true|dev/u?random|VM|\s)[A-Za-z][\w/]*", text) if path.suffix in (".toml", ".md") else []
        assert not found, f"{path.name}: {found}"
