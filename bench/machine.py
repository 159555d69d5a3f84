"""Facts about the machine and the programs, for the result file."""
import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

PACKAGES = ["fio", "rsync", "openssh-server", "casync", "nbdkit", "libnbd-bin", "qemu-utils", "libipsec-mb1", "libisal2", "libssl3",
            "liburing2"]


def said(*command):
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    return ""


def facts(root, places):
    """`places`: {name: folder} whose file systems matter."""
    cpu = pathlib.Path("/proc/cpuinfo").read_text()
    flags = set(re.search(r"^flags\s*:(.*)$", cpu, re.M)[1].split()) if "flags" in cpu else set()
    memory = re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text())
    versions = said("dpkg-query", "-W", "-f=${Package} ${Version}\n", *PACKAGES)
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": said("git", "-C", str(root), "describe", "--always", "--dirty"),
        "cpu": (re.search(r"model name\s*:\s*(.*)", cpu) or ["", "unknown"])[1],
        "cores": os.cpu_count(),
        "cpu_features": sorted(flags & {"sha_ni", "avx2", "avx512f", "vaes", "vpclmulqdq", "aes"}),
        "memory_bytes": int(memory[1]) * 1024 if memory else 0,
        "kernel": os.uname().release,
        "python": sys.version.split()[0],
        "load_average": list(os.getloadavg()),
        "file_systems": {name: said("stat", "-f", "-c", "%T", str(place)) for name, place in places.items()},
        "free_bytes": {name: shutil.disk_usage(place).free for name, place in places.items()},
        "packages": dict(line.split(" ", 1) for line in versions.splitlines() if " " in line),
    }


def busy_seconds():
    """CPU seconds that the whole machine has spent at work since its start: with our own it tells how much others took."""
    words = pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _idle, _wait, irq, softirq, *stolen = map(int, words)
    return {"busy": (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK"),
            "stolen": (stolen[0] if stolen else 0) / os.sysconf("SC_CLK_TCK")}
