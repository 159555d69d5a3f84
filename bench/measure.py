"""Times commands: wall clock, and CPU seconds of all that worked for them, daemons and their children included.

A command's CPU time is its rusage as its parent sees it (with every descendant that was waited for). A daemon's is read from
/proc before and after: its own time and that of its children which have ended. What the kernel does in threads of its own (write-back,
loop devices) is in neither.
"""
import contextlib
import dataclasses
import os
import pathlib
import select
import statistics
import subprocess
import tempfile
import time

TICK = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass
class Sample:
    """One run. `moved` is what proves that it did the work: the bytes it shipped or read, by its own account."""
    wall_s: float
    cpu_s: float
    moved: int = 0
    facts: dict = dataclasses.field(default_factory=dict)


class Missing(Exception):
    """A program that a figure or a peer needs is not installed; the message names it."""


class Failed(Exception):
    """A run that ended with an error. It fails the figure: there is no value without a good run."""


def children_of(pid):
    with contextlib.suppress(OSError):
        return [int(word) for word in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def cpu_of(pid):
    """CPU seconds of a live process and of its children that have ended."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(fields[at]) for at in (11, 12, 13, 14)) / TICK


def until_childless(pid, timeout=60):
    """Waits until a daemon that forks for each connection has reaped its children, so that their time counts."""
    deadline = time.monotonic() + timeout
    while children_of(pid) and time.monotonic() < deadline:
        time.sleep(0.002)


def timed(command, daemons=(), forking=(), timeout=1800, env=None):
    """Runs a command to its end and returns (wall seconds, CPU seconds, its output, its peak memory in bytes). `daemons` worked for it; those of
    `forking` fork for each connection, and are waited for outside the wall time."""
    words = [str(word) for word in command]
    before = sum(cpu_of(pid) for pid in (*daemons, *forking))
    with tempfile.TemporaryFile() as out:
        started = time.monotonic()
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=env)
        deadline = started + timeout
        _, status, usage = wait_for(process.pid, deadline)
        wall = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        for pid in forking:
            until_childless(pid)
        cpu = usage.ru_utime + usage.ru_stime + sum(cpu_of(pid) for pid in (*daemons, *forking)) - before
        out.seek(0)
        text = out.read().decode(errors="replace")
    if process.returncode != 0:
        raise Failed(f"{' '.join(words)}: exit {process.returncode}\n{text[-2000:]}")
    return wall, cpu, text, usage.ru_maxrss * 1024


def wait_for(pid, deadline):
    """A blocking wait while there is plenty of time; a process that is late is killed."""
    descriptor = os.pidfd_open(pid)
    try:
        ready, _, _ = select.select([descriptor], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            os.kill(pid, 9)
        return os.wait4(pid, 0)
    finally:
        os.close(descriptor)


@dataclasses.dataclass
class Contestant:
    """Something that is measured beside others. `prepare` runs before each `run` and is not timed."""
    name: str
    run: object  # () -> Sample
    prepare: object = None
    note: str = ""
    most: int = 1000  # rounds; one that is slow beyond comparison need not run in all of them
    ours: bool = False  # drives `backhaul`, and so runs with the old and the new program under --against; the others do not run then


@dataclasses.dataclass
class Series:
    """What one contestant did over all rounds; or why it did nothing."""
    name: str
    samples: list = dataclasses.field(default_factory=list)
    missing: str = ""
    note: str = ""
    old: object = None  # the old program's Series, under --against

    @property
    def wall_s(self):
        return statistics.median(sample.wall_s for sample in self.samples)

    @property
    def cpu_s(self):
        return statistics.median(sample.cpu_s for sample in self.samples)

    @property
    def moved(self):
        return min(sample.moved for sample in self.samples)


def alternate(contestants, rounds, programs):
    """Lets all run in turn, `rounds` times, each round beginning with another. Returns {name: Series}. One that is not installed or
    fails is left out of the next rounds and says why: a peer may, and for what must not there is rows.must().

    `programs`: the program to measure, or the old and the new one. Then each of ours runs with both, A B in one round and B A in the
    next, and a Series is the new one's and has the old one's beside it."""
    sides = [{one.name: Series(one.name, note=one.note) for one in contestants} for _ in programs]
    turns = list(enumerate(contestants))
    for number in range(rounds):
        first = number % len(contestants)
        for at, one in turns[first:] + turns[:first]:
            order = list(zip(programs, sides))
            for program, side in order[::-1] if (number + at) % 2 else order:
                os.environ["BACKHAUL_BIN"] = str(program)
                one_turn(one, [other[one.name] for other in sides], side[one.name], program)
    os.environ["BACKHAUL_BIN"] = str(programs[-1])
    for one in contestants if len(programs) > 1 else []:
        sides[-1][one.name].old = sides[0][one.name]
    return sides[-1]


def one_turn(contestant, all_series, series, program):
    if series.missing or len(series.samples) >= contestant.most:
        return
    try:
        if len(all_series) > 1 and not contestant.ours:
            raise Missing("does not run beside an old program")
        if contestant.prepare:
            contestant.prepare()
        series.samples.append(contestant.run())
    except (Missing, Failed) as reason:
        for other in all_series:
            other.samples, other.missing = [], f"{program}: {reason}" if contestant.ours else str(reason)
