"""The proof that nothing is lost, over many failbacks of real guests: Complete Failover is said at random moments, and in half of
them daemons are killed at random moments. After each every record that the guest was told is safe stands at home, in order and once, on
a clean file system and on the bare disk. BACKHAUL_SEED replays the moments, BACKHAUL_SOAK multiplies the failbacks.

Each failback starts with the old disks at home, without a record, so that nothing of an earlier one can stand in for what was lost."""
import contextlib
import http.client
import os
import random
import threading
import time

import guest_records
import pytest

import harness
from qemu_sites import DISKS, Watch
from sites import ENDED

FAILBACKS = 5 * int(os.environ.get("BACKHAUL_SOAK", "1"))
VM = "web"
pytestmark = pytest.mark.records


class Moments:
    """What happens when, in one failback. In every second one something is killed."""

    def __init__(self, chance, number):
        self.wait_s = chance.choice([0, chance.uniform(0, 2.5)])  # from the first round's end to Complete Failover
        self.early = chance.random() < 0.25                       # said while the first round runs
        self.victims = chance.choice([("appliance",), ("host",), ("host", "appliance")]) if number % 2 == 1 else ()
        # Of a failback's few seconds: while it replicates, waits, or (mostly) after Complete Failover.
        self.phase = chance.choice(["failover", "suspended", "resume", "resume", "resume", "resume"])
        self.kill_s = chance.uniform(0, 1.0 if self.phase != "resume" else 4.0)
        self.between_s = chance.choice([0, chance.uniform(0, 0.5)])  # from the first kill to the second

    def __str__(self):
        killed = f", kill {'+'.join(self.victims)} {self.kill_s:.2f} s after {self.phase}" if self.victims else ""
        return f"{'early' if self.early else f'{self.wait_s:.2f} s'}{killed}"


class Killer:
    """Kills the victims at their moment and starts them again, while the failback goes on."""

    def __init__(self, sites, moments):
        self.sites, self.moments, self.thread, self.problem = sites, moments, None, None

    def begin(self, phase):
        if self.moments.victims and self.moments.phase == phase and self.thread is None:
            self.thread = threading.Thread(target=self._run)
            self.thread.start()

    def _run(self):
        try:
            time.sleep(self.moments.kill_s)
            daemons = [self.sites.appliance if name == "appliance" else self.sites.host() for name in self.moments.victims]
            for number, daemon in enumerate(daemons):
                time.sleep(self.moments.between_s if number else 0)
                daemon.kill()
            for daemon in daemons:
                daemon.start()
        except (AssertionError, OSError) as problem:
            self.problem = problem

    def join(self):
        if self.thread is not None:
            self.thread.join()
        if self.problem is not None:
            raise self.problem


def complete(sites, job, moments, killer):
    if not moments.early:
        sites.wait_state(job, "Suspended", *ENDED, timeout=180)
        killer.begin("suspended")
        time.sleep(moments.wait_s)

    def resumed():
        with contextlib.suppress(OSError, http.client.HTTPException):  # the appliance is away
            found = sites.api.job(job)
            if found["backhaul"]["completeRequested"] or found["state"] in ENDED:
                return True
            if "Resume" in found["allowedActions"]:
                sites.api.resume(job)
        return False
    harness.wait_until(resumed, 120, "Complete Failover")
    killer.begin("resume")


def fail_back(sites, moments):
    killer = Killer(sites, moments)
    job = sites.api.failover(VM, recoveryVmCreationOption="CreateVmIfNotFound")
    killer.begin("failover")
    try:
        complete(sites, job, moments, killer)
        done = sites.wait_state(job, *ENDED, timeout=300)
    finally:
        killer.join()
    assert done["state"] == "Succeeded", done
    return done


def put_old_disks_home(sites, record_disks):
    for disk in DISKS:
        target = sites.home().disks / f"{VM}-{disk}.vhdx"
        target.unlink(missing_ok=True)
        harness.run("qemu-img", "convert", "-f", "raw", "-O", "vhdx", record_disks / f"{disk}.raw", target)


def expect_measured(done, before):
    """The downtime has all its parts, and what was projected for the boot is what the failback before had measured."""
    downtime = done["backhaul"]["downtime"]
    assert downtime["from"] == "LastWrite" and downtime["until"] == "FirstWrite", downtime
    assert abs(sum(downtime["parts"].values()) - downtime["seconds"]) < 0.01
    assert downtime["parts"]["bootSeconds"] > 0.3, "no guest boots as fast"
    if before is not None:
        assert downtime["projected"]["parts"]["bootSeconds"] == pytest.approx(before["parts"]["bootSeconds"])
    return downtime


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("series", range(4))
def test_every_acknowledged_record_is_at_home_whenever_it_is_completed_and_whoever_is_killed(qemu_sites, record_disks, seed, series):
    chance = random.Random(f"{seed}/{series}")
    here, home = qemu_sites.recovery, qemu_sites.home()
    qemu_sites.make_guest(VM)
    first, downtime = 0, None
    for number in range(FAILBACKS):
        moments = Moments(chance, number + series)
        began = time.monotonic()
        with Watch(here.console(VM)) as away:
            away.wait_for(first + chance.randrange(1, 20))
            assert guest_records.starts(away.text()) == [first], "the guest went on with its next record"
            done = fail_back(qemu_sites, moments)
            last = away.last()
            with Watch(home.console(VM)) as back:
                went_on = back.expect_to_go_on_after(away, count=2)
        qemu_sites.expect_records_at_home(VM, went_on)
        downtime = expect_measured(done, downtime)
        print(f"{series}/{number}: {moments}: records {first}-{last}, {went_on} at home; downtime {downtime['seconds']:.2f} s "
              f"{downtime['parts']}; {time.monotonic() - began:.1f} s", flush=True)
        first = last + 1
        qemu_sites.end(qemu_sites.api.cancel_failover(VM), timeout=180)
        put_old_disks_home(qemu_sites, record_disks)
