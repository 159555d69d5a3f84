"""kill -9 of either daemon in every task of every kind of job: after a restart the job goes on, and contents and states are right. The moment is
chosen by the job's current task: the example driver is held at a verb of that task, or the transfer is slow."""
import concurrent.futures
import contextlib
import dataclasses
import pathlib
import signal

import pytest

import harness
from harness import MIB
from sites import Sites

DISKS = {"os": 8 * MIB, "data": 2 * MIB + 512 * 3}
SLOW = {"transfer": {"limit_bytes_per_s": 2 * MIB, "compress": "off"}}


@pytest.fixture(scope="module")
def shared(pki, tmp_path_factory):
    with Sites(tmp_path_factory.mktemp("sites"), pki) as both:
        yield both


@pytest.fixture
def sites(shared):
    yield shared
    shared.settle()


@dataclasses.dataclass(frozen=True)
class Moment:
    """In `task` of a job, with the driver held at `verb` at this site; None: while a disk is being transferred."""
    task: str
    verb: str = None
    site: str = "recovery"

    def __str__(self):
        return f"{self.task}-{self.verb or 'transfer'}"


def drivers(folders):
    """Driver processes that serve these folders."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            variables = path.read_text(errors="replace").split("\0")
            if any(f"BACKHAUL_FILES_ROOT={folder}" in variables for folder in folders):
                found.append(path.parent.name)
    return found


def kill(sites, victim):
    daemons = {"appliance": [sites.appliance], "host": [sites.host()], "both": [sites.appliance, sites.host()]}[victim]
    for daemon in daemons:
        daemon.kill()
    # A driver that outlived its daemon would overlap with the repetition of its call.
    folders = [sites.recovery.vms] if victim == "appliance" else [sites.home().vms] if victim == "host" else [sites.recovery.vms, sites.home().vms]
    harness.wait_until(lambda: not drivers(folders), 20, "the drivers' end")
    for daemon in reversed(daemons):
        daemon.start()


@contextlib.contextmanager
def killed_at(sites, vm, moment, victim, start):
    """Runs start() (which gives the job), kills at the moment, and gives the job to the block, the driver free again."""
    place = sites.recovery if moment.site == "recovery" else sites.home()
    with contextlib.ExitStack() as stack:
        held = stack.enter_context(place.hold(vm, moment.verb)) if moment.verb else None
        job = start()
        if held:
            held.wait()
        else:
            # The smaller disk is through, or part of the larger one, of which most is still to come.
            sites.wait_job(job, lambda now: now["backhaul"]["currentTask"] == moment.task and now["backhaul"]["progress"]["bytesDone"] > 0)
        assert sites.api.job(job)["backhaul"]["currentTask"] == moment.task
        kill(sites, victim)
    yield job


def name_of(request):
    return "vm-" + "".join(letter if letter.isalnum() else "-" for letter in request.node.callspec.id).lower()[:50]


def begin(sites, vm, sync, until):
    """A planned failover, with Complete Failover said unless it is to be killed in phase 1."""
    job = sites.api.failover(vm, sync=sync)
    if sync == "ForDownTime" and until not in ("PrepareFailover", "Replicate"):
        sites.suspended(job)
        if until != "WaitForComplete":
            sites.api.resume(job)
    return job


def complete(sites, job):
    """Whatever the job still needs to end well."""
    found = sites.wait_state(job, "Suspended", "Succeeded", "Failed", "Cancelled")
    if found["state"] == "Suspended":
        sites.api.resume(job)
    return sites.end(job)


FAILBACK = [("ForDownTime", Moment("Replicate", "snapshot")), ("ForDownTime", Moment("Replicate")), ("ForDownTime", Moment("Replicate", "release-snapshot")),
            ("ForDownTime", Moment("WaitForComplete", "changed-bytes")), ("ForDownTime", Moment("WaitForComplete", "snapshot")),
            ("ForDownTime", Moment("ShutdownSource", "shut-down")), ("ForDownTime", Moment("FinalDelta", "snapshot")),
            ("ForDownTime", Moment("StartTarget", "start", "primary")), ("ForSynchronization", Moment("ShutdownSource", "shut-down")),
            ("ForSynchronization", Moment("FullDownload")), ("ForSynchronization", Moment("StartTarget", "start", "primary"))]


# Both at once where both are at work.
KILLS = [(sync, moment, victim) for sync, moment in FAILBACK for victim in ("appliance", "host", "both")
         if victim != "both" or moment in (Moment("Replicate"), Moment("FullDownload"), Moment("StartTarget", "start", "primary"))]


@pytest.mark.parametrize("sync,moment,victim", KILLS, ids=str)
def test_a_failback_goes_on_after_a_kill(sites, request, sync, moment, victim):
    vm = name_of(request)
    slow = SLOW if moment.verb is None else {}
    sites.declare(vm, disks=DISKS, changed=0.9 if slow else 0.2, **slow)
    if moment == Moment("FinalDelta", "snapshot"):
        job = sites.api.failover(vm)
        sites.suspended(job)
        with sites.recovery.hold(vm, "shut-down") as shutdown:
            sites.api.resume(job)
            shutdown.wait()
            with sites.recovery.hold(vm, "snapshot") as held:
                shutdown.release()
                held.wait()
                assert sites.api.job(job)["backhaul"]["currentTask"] == moment.task
                kill(sites, victim)
    elif moment.task == "WaitForComplete":
        job = sites.api.failover(vm)
        sites.suspended(job)
        with sites.recovery.hold(vm, moment.verb) as held:
            held.wait()
            kill(sites, victim)
        sites.recovery.write(vm, "data", MIB, "written after the kill")
    else:
        with killed_at(sites, vm, moment, victim, lambda: begin(sites, vm, sync, moment.task)) as job:
            pass
    complete(sites, job)
    sites.expect_home_equals_recovery(vm, disks=DISKS)
    sites.expect_powers(vm, recovery="off", primary="running")
    assert sites.api.state(vm) == "PlannedFailoverCommitPending"


@pytest.mark.parametrize("victim", ["appliance", "host"])
@pytest.mark.parametrize("sync,moment", [("ForDownTime", Moment("Replicate")), ("ForDownTime", Moment("ShutdownSource", "shut-down")),
                                         ("ForSynchronization", Moment("FullDownload"))], ids=str)
def test_a_cancel_after_a_kill_gives_the_old_disks_back(sites, request, sync, moment, victim):
    vm = "c" + name_of(request)
    old = sites.declare(vm, disks=DISKS, changed=0.9, **SLOW)
    with killed_at(sites, vm, moment, victim, lambda: begin(sites, vm, sync, moment.task)) as job:
        sites.api.cancel(job)
    sites.end(job, "Cancelled")
    assert sites.digests(vm, sites.home(), DISKS) == old
    sites.expect_powers(vm, recovery="running", primary="off")
    assert sites.api.state(vm) == "FailoverCommitted"
    assert [name for name in sites.leftovers() if name.startswith(f".{vm}-")] == []


@pytest.mark.parametrize("victim", ["appliance", "host"])
def test_a_kill_while_a_cancel_is_carried_out(sites, request, victim):
    vm = "r" + name_of(request)
    old = sites.declare(vm, disks=DISKS)
    with sites.recovery.hold(vm, "shut-down") as shutdown, sites.recovery.hold(vm, "start") as start:
        job = sites.api.failover(vm, sync="ForSynchronization")
        shutdown.wait()
        sites.api.cancel(job)
        shutdown.release()
        start.wait()
        assert sites.api.job(job)["backhaul"]["currentTask"] == "StartSource"
        kill(sites, victim)
    sites.end(job, "Cancelled")
    assert sites.digests(vm, sites.home(), DISKS) == old
    sites.expect_powers(vm, recovery="running", primary="off")


@pytest.mark.parametrize("victim", ["appliance", "host"])
@pytest.mark.parametrize("moment", [Moment("DeleteSourceVm", "remove"), Moment("StopTarget", "stop", "primary"), Moment("StartSource", "start"),
                                    Moment("InitialReplication", "snapshot", "primary"), Moment("Cycle", "snapshot", "primary")], ids=str)
def test_what_follows_a_failover_goes_on_after_a_kill(sites, request, moment, victim):
    vm = "f" + name_of(request)
    sites.declare(vm, disks=DISKS, replication_minutes=1)
    sites.fail_back(vm)
    home = sites.digests(vm, sites.home(), DISKS)
    if moment.task == "DeleteSourceVm":
        with killed_at(sites, vm, moment, victim, lambda: sites.api.commit(vm)) as job:
            sites.end(job)
        sites.expect_powers(vm, recovery="absent", primary="running")
        assert sites.digests(vm, sites.home(), DISKS) == home
    elif moment.task in ("StopTarget", "StartSource"):
        with killed_at(sites, vm, moment, victim, lambda: sites.api.cancel_failover(vm)) as job:
            sites.end(job)
        sites.expect_powers(vm, recovery="running", primary="off")
        assert sites.digests(vm, sites.recovery, DISKS) == home, "nothing that it had is lost"
        assert sites.api.state(vm) == "FailoverCommitted"
    else:
        sites.end(sites.api.commit(vm))
        sites.home().write(vm, "os", 4096, "written at home")
        if moment.task == "InitialReplication":
            with killed_at(sites, vm, moment, victim, lambda: sites.api.reprotect(vm)) as job:
                sites.end(job)
        else:
            sites.end(sites.api.reprotect(vm))
            with sites.home().hold(vm, "snapshot") as held:
                held.wait()
                kill(sites, victim)
        sites.home().write(vm, "data", 4096, "written at home, later")
        harness.wait_until(lambda: sites.digests(vm, sites.recovery, DISKS) == sites.digests(vm, sites.home(), DISKS), 90, "a cycle")
        assert sites.api.state(vm) == "Protected"
        assert sites.cli("item", "remove", vm, "--wait").returncode == 0


@pytest.mark.parametrize("victim", ["appliance", "host"])
@pytest.mark.parametrize("task", ["PlanReplicate", "PlanWait", "PlanShutdown", "PlanBoot"])
def test_a_plan_goes_on_after_a_kill(sites, task, victim):
    plan = f"plan-{task}-{victim}".lower()
    first, second = f"{plan}-1", f"{plan}-2"
    for vm in (first, second):
        sites.declare(vm, disks={"os": 2 * MIB})
    groups = [{"name": vm, "items": [vm]} for vm in (first, second)]
    sites.api.call("PUT", f"/replicationRecoveryPlans/{plan}", {"properties": {"groups": groups}})
    place, verb = {"PlanReplicate": (sites.recovery, "snapshot"), "PlanShutdown": (sites.recovery, "shut-down"), "PlanBoot": (sites.home(), "start"),
                   "PlanWait": (sites.recovery, "changed-bytes")}[task]
    with contextlib.ExitStack() as stack:
        held = place.hold(first, verb)
        if task != "PlanWait":
            stack.enter_context(held)
        job = sites.api.verb(f"/replicationRecoveryPlans/{plan}/plannedFailover")
        if task != "PlanReplicate":
            sites.suspended(job)
            stack.enter_context(held) if task == "PlanWait" else sites.api.resume(job)
        held.wait()
        if task == "PlanReplicate":  # the other item is through; a host agent that is away during its checks would rightly fail it
            sites.wait_task(harness.wait_until(lambda: sites.api.item(second)["backhaul"].get("currentJob"), 30), "WaitForComplete")
        assert sites.api.job(job)["backhaul"]["currentTask"] == task
        kill(sites, victim)
    complete(sites, job)
    for vm in (first, second):
        sites.expect_powers(vm, recovery="off", primary="running")
        sites.expect_home_equals_recovery(vm, disks={"os": 0})


def test_acknowledged_work_is_not_sent_again(sites, request):
    """After a kill in the middle of a full download the rest is sent, not all."""
    vm = "vm-resumed"
    # Twelve seconds, of which ten are to come when a part is acknowledged: a stalled machine must not let it end before the kill.
    sites.declare(vm, disks={"os": 12 * MIB}, changed=0.9, transfer={"limit_bytes_per_s": MIB, "compress": "off"})
    job = sites.api.failover(vm, sync="ForSynchronization")
    sites.wait_job(job, lambda now: now["backhaul"].get("progress", {}).get("bytesDone", 0) > 2 * MIB)
    kill(sites, "appliance")
    done = sites.end(job)
    assert sum(disk["resumedBytes"] for disk in done["backhaul"]["round"]["disks"]) > 0, done["backhaul"]["round"]
    sites.expect_home_equals_recovery(vm, disks={"os": 0})


def test_a_verb_that_was_recorded_is_carried_out_after_a_kill(sites):
    vm = "vm-recorded"
    sites.declare(vm, disks=DISKS)
    job = sites.api.failover(vm)
    sites.suspended(job)
    with sites.recovery.hold(vm, "changed-bytes") as held:
        held.wait()
        sites.api.resume(job)  # nothing can take it up now
        sites.appliance.kill()
    sites.appliance.start()
    sites.end(job)
    sites.expect_home_equals_recovery(vm, disks=DISKS)
    assert [entry["actor"] for entry in sites.api.audit(object=f"job/{job}") if "resume" in entry["action"]] == ["admin"]


@contextlib.contextmanager
def held_in_the_checks(sites, vm):
    """Gives a job that is in PrepareFailover. The verb makes the same checks before it returns: they are let through first."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool, sites.home().hold(vm, "preflight") as checks:
        started = pool.submit(sites.api.failover, vm)
        checks.wait()
        with sites.recovery.hold(vm, "describe") as held:
            checks.release()
            job = started.result(60)
            held.wait()
            assert sites.api.job(job)["backhaul"]["currentTask"] == "PrepareFailover"
            yield job


@pytest.mark.parametrize("victim", ["appliance", "host"])
def test_a_kill_during_a_job_s_checks(sites, request, victim):
    vm = "k" + name_of(request)
    sites.declare(vm, disks=DISKS)
    with held_in_the_checks(sites, vm) as job:
        kill(sites, victim)
    complete(sites, job)
    sites.expect_home_equals_recovery(vm, disks=DISKS)
    sites.expect_powers(vm, recovery="off", primary="running")


def test_a_cancel_during_a_job_s_checks(sites):
    vm = "vm-checks-cancelled"
    old = sites.declare(vm, disks=DISKS)
    with held_in_the_checks(sites, vm) as job:
        sites.api.cancel(job)
    sites.end(job, "Cancelled")
    assert sites.digests(vm, sites.home(), DISKS) == old
    sites.expect_powers(vm, recovery="running", primary="off")
    assert sites.api.state(vm) == "FailoverCommitted"


@contextlib.contextmanager
def frozen(daemon):
    """The daemon stands still: whoever calls it waits. It may be killed meanwhile."""
    process = daemon.process
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def frozen_at_the_swap(sites, vm, sync):
    """Gives a job that is in SwapDisks and waits for a host agent that stands still."""
    with contextlib.ExitStack() as stack:
        shutdown = stack.enter_context(sites.recovery.hold(vm, "shut-down"))
        job = begin(sites, vm, sync, "SwapDisks")
        shutdown.wait()
        release = stack.enter_context(sites.recovery.hold(vm, "release-snapshot"))
        shutdown.release()
        release.wait()
        with frozen(sites.host()):
            release.release()
            sites.wait_task(job, "SwapDisks")
            assert sites.api.job(job)["backhaul"]["currentTask"] == "SwapDisks"
            yield job


@pytest.mark.parametrize("victim", ["appliance", "host"])
@pytest.mark.parametrize("sync", ["ForDownTime", "ForSynchronization"])
def test_a_kill_before_the_disks_are_swapped(sites, request, sync, victim):
    vm = "s" + name_of(request)
    sites.declare(vm, disks=DISKS)
    with frozen_at_the_swap(sites, vm, sync) as job:
        kill(sites, victim)
    sites.end(job)
    sites.expect_home_equals_recovery(vm, disks=DISKS)
    sites.expect_powers(vm, recovery="off", primary="running")
    assert [name for name in sites.leftovers() if name.startswith(f".{vm}-")] == []


@pytest.mark.parametrize("victim", [None, "appliance", "host"])
def test_a_cancel_before_the_disks_are_swapped(sites, request, victim):
    vm = "w" + name_of(request)
    old = sites.declare(vm, disks=DISKS)
    with frozen_at_the_swap(sites, vm, "ForDownTime") as job:
        sites.api.cancel(job)
        if victim:
            kill(sites, victim)
    sites.end(job, "Cancelled")
    assert sites.digests(vm, sites.home(), DISKS) == old
    sites.expect_powers(vm, recovery="running", primary="off")
    assert [name for name in sites.leftovers() if name.startswith(f".{vm}-")] == []


@pytest.mark.parametrize("victim", ["appliance", "host"])
def test_a_kill_while_the_old_disks_are_given_back(sites, request, victim):
    vm = "b" + name_of(request)
    old = sites.declare(vm, disks=DISKS)
    job = sites.api.failover(vm)
    sites.suspended(job)
    with frozen(sites.host()):
        sites.api.cancel(job)
        sites.wait_task(job, "GiveBackDisks")
        assert sites.api.job(job)["backhaul"]["currentTask"] == "GiveBackDisks"
        kill(sites, victim)
    sites.end(job, "Cancelled")
    assert sites.digests(vm, sites.home(), DISKS) == old
    sites.expect_powers(vm, recovery="running", primary="off")


@pytest.mark.parametrize("victim", ["appliance", "host"])
def test_a_kill_while_protection_is_prepared(sites, request, victim):
    vm = "p" + name_of(request)
    sites.declare(vm, disks=DISKS, replication_minutes=1)
    sites.fail_back(vm)
    sites.end(sites.api.commit(vm))
    with killed_at(sites, vm, Moment("PrepareReprotect", "describe", "primary"), victim, lambda: sites.api.reprotect(vm)) as job:
        sites.end(job)
    assert sites.api.state(vm) == "Protected"
    sites.expect_home_equals_recovery(vm, disks=DISKS)
    assert sites.cli("item", "remove", vm, "--wait").returncode == 0


@pytest.mark.parametrize("victim", ["appliance", "host"])
def test_a_kill_while_the_commit_of_the_way_out_is_settled(sites, request, victim):
    vm = "o" + name_of(request)
    sites.declare(vm, disks=DISKS, replication_minutes=1)
    sites.fail_back(vm)
    sites.end(sites.api.commit(vm))
    sites.end(sites.api.reprotect(vm))
    sites.fail_back(vm)
    sites.expect_powers(vm, recovery="running", primary="off")
    with killed_at(sites, vm, Moment("SettleCommit", "forget-tokens", "primary"), victim, lambda: sites.api.commit(vm)) as job:
        sites.end(job)
    assert sites.api.state(vm) == "FailoverCommitted"
    sites.expect_home_equals_recovery(vm, disks=DISKS)


@pytest.mark.parametrize("victim", ["appliance", "host"])
def test_a_kill_while_a_plan_commits(sites, request, victim):
    vm = "q" + name_of(request)
    plan = f"plan-commit-{victim}"
    sites.declare(vm, disks={"os": 2 * MIB})
    sites.api.call("PUT", f"/replicationRecoveryPlans/{plan}", {"properties": {"groups": [{"name": vm, "items": [vm]}]}})
    sites.fail_back(vm)
    with sites.recovery.hold(vm, "remove") as held:
        job = sites.api.verb(f"/replicationRecoveryPlans/{plan}/failoverCommit")
        held.wait()
        assert sites.api.job(job)["backhaul"]["currentTask"] == "PlanItems"
        kill(sites, victim)
    sites.end(job)
    assert sites.api.state(vm) == "PlannedFailoverCommitted"
    sites.expect_powers(vm, recovery="absent", primary="running")
