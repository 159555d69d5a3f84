#!/usr/bin/python3
"""The demo: a real virtual machine comes home while it runs.

At the recovery site a guest in QEMU writes numbered records with fsync and says on its console which it was told are safe. At the
primary site lie its old disks as VHDX. The appliance fails it back: it replicates while the guest writes, and on Complete Failover
shuts the guest down, sends the last changes, swaps the disks in and starts it at home. Then the failback is undone and done once more, with
kill -9 of both daemons in the downtime. Every record is looked for at home. Asks nothing, leaves nothing behind; exit 1 when
anything does not match.

    demo.py [--program PATH]
"""
import argparse
import contextlib
import http.client
import os
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
import guest_records  # noqa: E402
import harness  # noqa: E402
from qemu_sites import DISKS, QemuSites, Watch  # noqa: E402

MIB = harness.MIB
VM = "web"
CREATE = "CreateVmIfNotFound"
PARTS = ("shutdown", "delta", "verify", "swap", "start", "boot")
PACE = {"look_ms": 250, "delta_interval_ms": 4000, "delta_least_ms": 1000, "retry_first_ms": 200, "retry_last_ms": 1000, "attempts": 60}


class Timeline:
    def __init__(self):
        self.began = time.monotonic()

    def say(self, text):
        print(f"  {time.monotonic() - self.began:6.2f} s  {text}", flush=True)


def title(text):
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def fact(name, value):
    print(f"  {name:24} {value}", flush=True)


def mib(count):
    return f"{count / MIB:,.1f} MiB"


def expect(condition, text):
    if not condition:
        raise AssertionError(text)
    print(f"  ok: {text}", flush=True)


def describe_round(found):
    disks = found["disks"]
    return (f"round {found['number']}: {sum(disk['blocksCompared'] for disk in disks):,} blocks compared, "
            f"{sum(disk['blocksChanged'] for disk in disks):,} changed, {mib(sum(disk['payloadBytes'] for disk in disks))} sent")


class Follower:
    """Tells what a job does as it does it."""

    def __init__(self, sites, timeline, watch):
        self.sites, self.timeline, self.watch, self.round, self.task = sites, timeline, watch, 0, None

    def look(self, job):
        found = self.sites.api.job(job)
        facts = found["backhaul"]
        if facts["round"]["number"] != self.round and not facts["round"]["open"]:
            self.round = facts["round"]["number"]
            self.timeline.say(f"{describe_round(facts['round'])}; the guest is at record {self.watch.last()}")
        if facts["currentTask"] != self.task:
            self.task = facts["currentTask"]
            self.timeline.say(self.task)
        return found

    def until(self, job, condition, timeout=120):
        def look():
            with contextlib.suppress(OSError, http.client.HTTPException):  # the appliance is away
                now = self.look(job)
                return now if condition(now) else None
        found = harness.wait_until(look, timeout, f"job {job}")
        if found["state"] == "Failed":
            raise AssertionError(f"the job failed: {found['errors']}")
        return found


def show_downtime(done, gap):
    downtime = done["backhaul"]["downtime"]
    measured, projected = downtime["parts"], downtime["projected"]["parts"]
    print(f"\n  {'downtime':24} {'projected':>10} {'measured':>10}", flush=True)
    for part in PARTS:
        key = f"{part}Seconds"
        print(f"    {part:22} {projected.get(key, 0):8.2f} s {measured.get(key, 0):8.2f} s", flush=True)
    print(f"    {'in all':22} {downtime['projected']['seconds']:8.2f} s {downtime['seconds']:8.2f} s", flush=True)
    fact("by the guest's records", f"{gap:.2f} s from the last acknowledged one there to the first one at home")
    expect(downtime["from"] == "LastWrite" and downtime["until"] == "FirstWrite", "measured from the last write to the first")


def fail_back(sites, away, victims=()):
    """A planned failover to its end; `victims` are killed right after Complete Failover. Returns the job and the watch at home."""
    timeline = Timeline()
    sites.home().console(VM).unlink(missing_ok=True)  # of an earlier start
    job = sites.api.failover(VM, recoveryVmCreationOption=CREATE)
    follower = Follower(sites, timeline, away)
    follower.until(job, lambda now: now["state"] in ("Suspended", "Failed"))
    away.wait_for_more(60)
    found = follower.look(job)
    timeline.say(f"next delta {mib(found['backhaul']['nextDeltaBytes'])}, projected downtime "
                 f"{found['backhaul']['projectedDowntimeSeconds']:.1f} s. Complete Failover")
    sites.api.resume(job)
    for victim in victims:
        victim.kill()
        timeline.say(f"kill -9 of the {victim.name}")
    for victim in victims:
        victim.start()
    back = Watch(sites.home().console(VM))
    done = follower.until(job, lambda now: now["state"] in ("Succeeded", "Failed"))
    timeline.say("the guest runs at home and writes")
    return done, back


def check_job(sites, done):
    for disk in done["backhaul"]["round"]["disks"]:
        here = harness.digest(sites.recovery.disk(VM, disk["name"]))
        expect(here == disk["rootDigestSource"] == disk["rootDigestTarget"],
               f"disk {disk['name']}: both ends' root digests and `backhaul digest` of the source agree: {here[:16]}...")


def check_at_home(sites, back, last):
    """The guest goes on there; then it is shut down and its disks are looked into."""
    went_on = back.wait_for(last + 20)
    expect(guest_records.starts(back.text()) == [last + 1], f"the guest found record {last} as its last at home, and goes on with {last + 1}")
    expect(went_on >= last + 20, f"it writes at home: record {went_on}")
    final = sites.expect_records_at_home(VM, back.last())
    expect(True, f"every acknowledged record of both sites is on the disks at home, in order: {final}; ext4 is clean")
    for disk in DISKS:
        harness.qemu_check(sites.home().disks / f"{VM}-{disk}.vhdx")
    expect(True, "qemu-img check finds nothing wrong with the VHDX disks")


def demo(folder):
    title("1. Two sites: a guest that runs at the recovery site, and its old disks at home")
    fresh = folder / "fresh"
    fresh.mkdir()
    guest_records.build(fresh / "os.raw", fresh / "data.raw")
    pki = harness.make_pki(folder / "tls")
    with QemuSites(folder / "sites", pki, fresh, pace=PACE) as sites:
        fact("appliance", f"https://127.0.0.1:{sites.appliance.port}, with the qemu driver")
        fact("host agent", f"127.0.0.1:{sites.host().port}, mutual TLS 1.3, with the qemu driver")
        sites.make_guest(VM)
        with Watch(sites.recovery.console(VM)) as away:
            away.wait_for(20)
            fact("guest", f"two disks, {mib(guest_records.SIZE)} and {mib(guest_records.SECOND_SIZE)}; it has written record {away.last()}")

            title("2. It fails back while it runs")
            done, back = fail_back(sites, away)
            last = away.last()
            with back:
                back.wait_for(last + 1)
                show_downtime(done, back.seen[last + 1] - away.seen[last])
                title("3. Proof")
                check_job(sites, done)
                check_at_home(sites, back, last)

            title("4. Undo; and once more, with both daemons killed in the downtime")
            sites.end(sites.api.cancel_failover(VM), timeout=120)
            away.wait_for(last + 20)
            expect(guest_records.starts(away.text()) == [last + 1], f"undone: the guest runs at the recovery site again, from record {last + 1}")
            done, back = fail_back(sites, away, victims=(sites.host(), sites.appliance))
            last = away.last()
            with back:
                back.wait_for(last + 1)
                show_downtime(done, back.seen[last + 1] - away.seen[last])
                check_job(sites, done)
                check_at_home(sites, back, last)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", help="the backhaul program (default: build/release/backhaul)")
    options = parser.parse_args()
    if options.program:
        os.environ["BACKHAUL_BIN"] = options.program
    if not os.access(harness.program(), os.X_OK):
        print(f"demo: no program at {harness.program()}: run ./dev build", file=sys.stderr)
        return 1
    started = time.monotonic()
    try:
        with harness.temporary_folder() as folder:
            (folder / "sites").mkdir()
            demo(folder)
    except (AssertionError, RuntimeError, ValueError, KeyError, OSError,
            subprocess.SubprocessError) as problem:
        print(f"\ndemo: FAILED: {problem}", file=sys.stderr)
        return 1
    title(f"The guest is home. {time.monotonic() - started:.0f} s in all.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
