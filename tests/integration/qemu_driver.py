"""The qemu driver under script: a `driver_tool` process that does the driver's calls one by one, and a second monitor
into the VMs that it starts, through which a test writes to a disk as the guest's device would."""
import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess

import harness

MIB = harness.MIB
BLOCK = harness.BLOCK
DESCRIPTION = {"name": "web", "generation": 2, "memory_mib": 64, "cpus": 1, "firmware": "bios"}


class DriverError(AssertionError):
    def __init__(self, verb, error):
        super().__init__(f"{verb}: {error}")
        self.code, self.cause = error["code"], error["cause"]


def tool():
    return str(pathlib.Path(harness.program()).parent / "driver_tool")


class Driver:
    """Calls for one VM. `folder` holds its disks; each value of `disks` is a file name, with its format by extension."""

    def __init__(self, folder, disks=("os.raw",), vm="web", settings=None, **options):
        self.folder, self.vm, self.settings = pathlib.Path(folder), vm, settings or {}
        self.disks = [{"name": pathlib.Path(disk).stem, "path": str(disk), "format": pathlib.Path(disk).suffix[1:]}
                      for disk in disks]
        self.options = {"state": str(self.folder / "vms"), "disks": [str(self.folder)], "timeout_s": 20,
                        "reserve_bytes": MIB, "machine": "pc"} | options
        self.options.setdefault("arguments", [])
        self.options["arguments"] = self.options["arguments"] + [
            "-chardev", f"socket,id=test,path={self.monitor()},server=on,wait=off", "-mon", "chardev=test,mode=control"]
        self.process = None

    def monitor(self):
        return self.folder / f"{self.vm}.test"

    def __enter__(self):
        self.process = subprocess.Popen([tool(), json.dumps(self.options)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *ignored):
        if self.process is not None:
            self.end()
        self.kill_qemu()

    def end(self):
        """The daemon ends; its VMs live on."""
        process, self.process = self.process, None
        process.stdin.close()
        process.wait(60)
        process.stdout.close()

    def kill(self):
        """kill -9 of the daemon, and a new one."""
        self.process.kill()
        self.end()
        return self.__enter__()

    def ask(self, verb, **fields):
        """Sends a call and does not wait for its answer."""
        request = {"vm": self.vm, "settings": self.settings, "disks": self.disks} | fields
        self.process.stdin.write(f"{verb} {json.dumps(request)}\n")
        self.process.stdin.flush()

    def call(self, verb, **fields):
        self.ask(verb, **fields)
        return self.answer(verb, self.process.stdout.readline())

    def answer(self, verb, line):
        answer = json.loads(line)
        if "error" in answer:
            raise DriverError(verb, answer["error"])
        return answer

    def power(self):
        return self.call("describe")["power"]

    def create_and_start(self, **more):
        self.call("create", description=DESCRIPTION | more)
        return self.call("start")["token"]

    def snapshot(self, id):
        return self.call("snapshot", id=id)

    def release(self, id, accepted=True):
        self.call("release-snapshot", id=id, accepted=accepted)

    def changed(self, since, id, disk="os"):
        answer = self.call("changed-extents", disk=disk, since_token=since, id=id)
        return answer["extents"] if answer["extents"] is not None else answer["why_unknown"]

    # The process --------------------------------------------------------------------------------------------------

    def directory(self):
        return pathlib.Path(self.options["state"]) / self.vm

    def record(self):
        return json.loads((self.directory() / "state.json").read_text())

    def qemu_pid(self):
        return int((self.directory() / "qemu.pid").read_text())

    def kill_qemu(self):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
            pid = self.qemu_pid()
            if str(self.directory()) not in pathlib.Path(f"/proc/{pid}/cmdline").read_text():
                return  # it ended long ago, and somebody else has its number
            os.kill(pid, signal.SIGKILL)
            harness.wait_until(lambda: not alive(pid), what="the end of QEMU")

    # As the guest -------------------------------------------------------------------------------------------------

    def qmp(self, *commands):
        """Commands on the second monitor; returns what each returned."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(30)
            link.connect(str(self.monitor()))
            lines = link.makefile("rw")
            lines.readline()
            answers = []
            for command in ({"execute": "qmp_capabilities"},) + commands:
                lines.write(json.dumps(command) + "\n")
                lines.flush()
                while True:
                    answer = json.loads(lines.readline())
                    if "event" not in answer:
                        break
                answers.append(answer)
        return answers[1:]

    def io(self, *commands, disk=0):
        """qemu-io commands on the device's own backend: they take the guest's way."""
        device = f"/machine/peripheral/bhd{disk}/virtio-backend"
        for answer in self.qmp(*({"execute": "human-monitor-command",
                                  "arguments": {"command-line": f'qemu-io -d {device} "{command}"'}}
                                 for command in commands)):
            assert answer.get("return") == "", answer

    def write(self, offset, length, pattern, disk=0):
        self.io(f"write -P {pattern} {offset} {length}", disk=disk)

    def status(self):
        return self.qmp({"execute": "query-status"})[0]["return"]["status"]


def alive(pid):
    """Whether it runs, also when only its first thread has ended; one that nobody has waited for yet does not."""
    process = pathlib.Path(f"/proc/{pid}")
    try:
        ended = (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return not ended or len(list((process / "task").iterdir())) > 1
    except (FileNotFoundError, ProcessLookupError):
        return False


def make_disk(path, size):
    harness.run("qemu-img", "create", "-q", "-f", pathlib.Path(path).suffix[1:], path, size)
    return pathlib.Path(path)


def content(path):
    """The whole of a small disk, VHDX or raw; by our own reader and not by QEMU, which would want its locks."""
    if pathlib.Path(path).suffix == ".raw":
        return pathlib.Path(path).read_bytes()
    raw = pathlib.Path(f"{path}.dump")
    harness.run(pathlib.Path(tool()).parent / "vhdx_tool", "dump", path, raw)
    try:
        return raw.read_bytes()
    finally:
        raw.unlink()


def expect_exact(before, after, extents):
    """The later content is the earlier one with the extents taken from it, and each extent is needed at block precision."""
    patched = bytearray(before)
    for offset, length in extents:
        patched[offset:offset + length] = after[offset:offset + length]
    assert patched == after, "a change lies outside the extents"
    changed = {number for number in range(len(after) // BLOCK)
               if before[number * BLOCK:(number + 1) * BLOCK] != after[number * BLOCK:(number + 1) * BLOCK]}
    told = {number for offset, length in extents for number in range(offset // BLOCK, (offset + length - 1) // BLOCK + 1)}
    return changed, told
