"""Whole failbacks through the API, between real daemons over loopback TLS: what operators are promised, point by point."""
import json
import threading
import time

import pytest

import harness
from harness import MIB
from sites import DISKS, Refused, Sites

ITEM = "/replicationProtectedItems/{}"


@pytest.fixture(scope="module")
def shared(pki, tmp_path_factory):
    """Two primary sites and one appliance; each test has VMs of its own. At hv03 the network LAN is missing."""
    with Sites(tmp_path_factory.mktemp("sites"), pki, hosts=("hv01", "hv02", "hv03"), host_more={"hv03": {"networks": ("DMZ",)}}) as both:
        yield both


@pytest.fixture
def sites(shared):
    """The same; whatever the test has left running is ended."""
    yield shared
    shared.settle()


def refused(call, *arguments, **options):
    with pytest.raises(Refused) as caught:
        call(*arguments, **options)
    return caught.value


# 1. Before it starts ----------------------------------------------------------------------------------------------------

def test_an_earlier_failover_must_be_committed_first(sites, vm):
    sites.declare(vm, earlier_failover_committed=False)
    assert sites.api.state(vm) == "FailoverCommitPending"
    error = refused(sites.api.failover, vm)
    assert (error.status, error.code) == (409, "control.forbidden_in_phase")
    assert sites.api.commit(vm) is None, "nothing is left to do but to record it"
    assert sites.api.state(vm) == "FailoverCommitted"
    sites.suspended(sites.api.failover(vm))


def test_a_failover_needs_a_host_agent_that_answers(sites, vm):
    sites.declare(vm)
    sites.host("hv01").kill()
    error = refused(sites.api.failover, vm)
    assert (error.status, error.code) == (409, "control.precondition_failed"), error
    assert "hv01" in json.dumps(error.body)
    assert sites.api.state(vm) == "FailoverCommitted"
    sites.host("hv01").start()
    sites.suspended(sites.api.failover(vm))


def test_preflight_finds_what_is_missing_changes_nothing_and_estimates(sites, vm):
    old = sites.declare(vm, home="hv03", changed=0.5)
    answer = sites.cli_json("item", "preflight", vm, check=False)
    checks = {check["name"]: check for check in answer["properties"]["checks"]}
    missing = [check for check in checks.values() if check["level"] == "Failed"]
    assert not answer["properties"]["passed"] and [check["name"] for check in missing] == ["network:LAN"], checks
    assert missing[0]["code"] and missing[0]["cause"] and missing[0]["recommendedAction"]
    done = sites.cli("item", "preflight", vm, check=False)
    assert done.returncode == 1 and "not passed" in done.stdout
    error = refused(sites.api.failover, vm)
    assert (error.status, error.code) == (409, "control.precondition_failed") and "LAN" in json.dumps(error.body)
    assert sites.digests(vm, sites.home("hv03")) == old and sites.leftovers("hv03") == []

    body = {"properties": sites.declaration(vm, home="hv01")}
    sites.make_vm(vm, changed=0.5)
    sites.api.call("PUT", ITEM.format(vm), body)
    answer = sites.cli_json("item", "preflight", vm)["properties"]
    assert answer["passed"], answer
    for name in ("free-space", "network:LAN", "clock"):
        assert any(check["name"].startswith(name) for check in answer["checks"]), answer["checks"]
    whole = sum(DISKS.values())
    assert 0.05 * whole < answer["estimate"]["bytes"] <= whole, answer["estimate"]
    assert answer["estimate"]["downtimeSeconds"] > 0


# 2. Planned failover ----------------------------------------------------------------------------------------------------

def test_nothing_that_the_guest_was_told_is_written_is_lost(sites, vm):
    sites.declare(vm)
    job = sites.api.failover(vm)
    waiting = sites.suspended(job)
    assert set(waiting["allowedActions"]) == {"Resume", "Cancel"}
    assert waiting["backhaul"]["direction"] == "RecoveryToPrimary"
    assert waiting["backhaul"]["target"]["host"] == "hv01"
    written = []

    def guest():  # writes until its VM is shut down
        try:
            for number in range(10**6):
                sites.recovery.write(vm, "os", 64 * 1024 * (number % 300), f"write {number};")
                written.append(number)
        except AssertionError:
            pass
    writer = threading.Thread(target=guest)
    writer.start()
    first = waiting["backhaul"]["round"]["number"]
    later = sites.wait_job(job, lambda now: now["backhaul"]["round"]["number"] >= first + 2 and now["backhaul"].get("projectedDowntimeSeconds"))
    assert later["state"] == "Suspended", "delta rounds go on while it waits"
    sites.api.resume(job)
    done = sites.end(job)
    writer.join()
    assert len(written) > 3
    newest = {number % 300: number for number in written}
    image = sites.home().disk(vm, "os").read_bytes()
    for place, number in newest.items():
        expected = f"write {number};".encode()
        assert image[64 * 1024 * place:64 * 1024 * place + len(expected)] == expected
    sites.expect_home_equals_recovery(vm)
    sites.expect_powers(vm, recovery="off", primary="running")
    for disk in done["backhaul"]["round"]["disks"]:
        assert disk["rootDigestSource"] and disk["rootDigestSource"] == disk["rootDigestTarget"]
        assert disk["rootDigestTarget"] == harness.digest(sites.home().disk(vm, disk["name"]))
    assert done["backhaul"]["downtimeSeconds"] > 0
    assert sites.api.state(vm) == "PlannedFailoverCommitPending"


def test_only_what_changed_is_sent(sites, vm):
    sites.declare(vm, changed=0.05)
    done = sites.suspended(sites.api.failover(vm))
    disks = done["backhaul"]["round"]["disks"]
    assert 0 < sum(disk["payloadBytes"] for disk in disks) < 0.2 * sum(DISKS.values()), disks


def test_complete_failover_during_a_round_is_not_lost(sites, vm):
    sites.declare(vm)
    job = sites.api.failover(vm)
    sites.suspended(job)
    with sites.recovery.hold(vm, "snapshot") as held:
        held.wait()  # a delta round has begun
        sites.api.resume(job)
        assert sites.api.job(job)["backhaul"]["completeRequested"]
        assert refused(sites.api.resume, job).status == 409, "it has been said already"
    sites.end(job)
    sites.expect_home_equals_recovery(vm)


def test_complete_failover_in_phase_1_is_taken_up_when_it_is_due(sites, vm):
    sites.declare(vm)
    with sites.recovery.hold(vm, "snapshot") as held:
        job = sites.api.failover(vm)
        held.wait()
        sites.api.resume(job)
    sites.end(job)
    sites.expect_powers(vm, recovery="off", primary="running")


def test_complete_failover_by_itself(sites, vm):
    sites.declare(vm)
    sites.end(sites.api.failover(vm, complete={"mode": "automatic", "downtimeBudgetSeconds": 3600}))
    sites.expect_powers(vm, recovery="off", primary="running")


def test_complete_failover_at_a_time(sites, vm):
    sites.declare(vm)
    at = int(time.time()) + 3
    job = sites.api.failover(vm, complete={"mode": "scheduled", "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))})
    sites.end(job)
    assert time.time() >= at


def test_for_synchronization_sends_everything_with_the_vm_off(sites, vm):
    sites.declare(vm, changed=0.02)
    with sites.recovery.hold(vm, "snapshot") as held:
        job = sites.api.failover(vm, sync="ForSynchronization")
        held.wait()
        assert sites.recovery.power(vm) == "off"
        assert sites.api.job(job)["backhaul"]["currentTask"] == "FullDownload"
    done = sites.end(job)
    assert sum(disk["blocksCompared"] for disk in done["backhaul"]["round"]["disks"]) == 0
    assert sum(disk["payloadBytes"] for disk in done["backhaul"]["round"]["disks"]) > 0.3 * sum(DISKS.values())
    sites.expect_home_equals_recovery(vm)


def test_a_guest_that_does_not_shut_down_fails_the_job_and_keeps_running(sites, vm):
    sites.declare(vm, shutdown={"timeout_s": 1, "allow_force": False})
    stubborn = sites.recovery.vms / vm / "ignores-power-button"
    stubborn.touch()
    job = sites.api.failover(vm)
    sites.suspended(job)
    sites.api.resume(job)
    failed = sites.end(job, "Failed")
    error = failed["errors"][-1]["serviceErrorDetails"]
    assert error["code"] == "control.shutdown_refused" and error["recommendedAction"]
    assert sites.api.state(vm) == "PlannedFailoverFailed" and failed["allowedActions"] == ["Restart"]
    sites.expect_powers(vm, recovery="running", primary="off")
    sites.recovery.write(vm, "os", 4096, "still alive")
    stubborn.unlink()
    sites.api.restart(job)
    sites.end(job)
    sites.expect_home_equals_recovery(vm)


def test_a_forced_shutdown_only_where_it_is_allowed(sites, vm):
    sites.declare(vm, shutdown={"timeout_s": 1, "allow_force": False})
    (sites.recovery.vms / vm / "ignores-power-button").touch()
    job = sites.api.failover(vm, sync="ForSynchronization", allowForcedShutdown=True)
    sites.end(job)
    sites.expect_powers(vm, recovery="off", primary="running")


# 3. Commit pending ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("delete", [False, True], ids=["disks are kept", "disks are deleted"])
def test_commit_deletes_the_recovery_vm(sites, vm, delete):
    vm += "d" if delete else "k"
    sites.declare(vm)
    sites.fail_back(vm)
    home = sites.digests(vm, sites.home())
    sites.end(sites.api.commit(vm, **({"deleteSourceDisks": True} if delete else {})))
    assert sites.api.state(vm) == "PlannedFailoverCommitted"
    sites.expect_powers(vm, recovery="absent", primary="running")
    assert sites.recovery.disk(vm, "os").exists() != delete
    assert sites.digests(vm, sites.home()) == home


def test_undo_until_commit_and_a_later_retry_is_a_delta(sites, vm):
    sites.declare(vm, changed=0.3)
    sites.fail_back(vm)
    before = sites.digests(vm, sites.recovery)
    sites.home().write(vm, "os", 8192, "written at home, and given up by the undo")
    sites.end(sites.api.cancel_failover(vm))
    assert sites.api.state(vm) == "FailoverCommitted"
    sites.expect_powers(vm, recovery="running", primary="off")
    assert sites.digests(vm, sites.recovery) == before, "nothing that it had is lost"
    sites.recovery.write(vm, "os", 12288, "written after the undo")
    done = sites.fail_back(vm)
    assert done["backhaul"]["round"]["disks"]
    sites.expect_home_equals_recovery(vm)
    sites.expect_powers(vm, recovery="off", primary="running")


@pytest.mark.parametrize("mode,healthy,state", [("commit-after", True, "PlannedFailoverCommitted"), ("undo-after", True, "PlannedFailoverCommitted"),
                                                ("undo-after", False, "FailoverCommitted")])
def test_the_commit_policy(sites, vm, mode, healthy, state):
    vm = f"{vm}{mode[0]}{healthy:d}"
    sites.declare(vm, disks={"os": 2 * MIB}, commit_policy={"mode": mode, "minutes": 2})
    if not healthy:
        (sites.home().vms / vm / "unhealthy").touch()
    sites.fail_back(vm)
    harness.wait_until(lambda: sites.api.state(vm) == state, 60, f"{vm} {state}")
    sites.expect_powers(vm, *(("absent", "running") if state == "PlannedFailoverCommitted" else ("running", "off")))
    assert any(entry["actor"] == "policy" for entry in sites.api.audit(object=f"item/{vm}"))


# 4. Cancel --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task,sync,verb", [("Replicate", "ForDownTime", "snapshot"), ("WaitForComplete", "ForDownTime", None), ("WaitForComplete", "ForDownTime", "snapshot"),
                                            ("ShutdownSource", "ForDownTime", "shut-down"), ("FinalDelta", "ForDownTime", "snapshot"),
                                            ("ShutdownSource", "ForSynchronization", "shut-down"), ("FullDownload", "ForSynchronization", "snapshot")])
def test_a_cancel_in_any_task_gives_the_old_disks_back(sites, vm, task, sync, verb):
    vm = f"{vm}{task[:2]}{sync[3]}{len(verb or '')}".lower()
    old = sites.declare(vm)
    recovery = sites.digests(vm, sites.recovery)
    with sites.recovery.hold(vm, "shut-down" if task == "FinalDelta" else verb or "none") as held:
        if task == "WaitForComplete":
            held.release()
        job = sites.api.failover(vm, sync=sync)
        if sync == "ForDownTime" and task != "Replicate":
            sites.suspended(job)
            if task == "WaitForComplete" and verb:
                held.__enter__()
            elif task != "WaitForComplete":
                sites.api.resume(job)
        if verb:
            held.wait()
        if task == "FinalDelta":
            with sites.recovery.hold(vm, "snapshot") as final:
                held.release()
                final.wait()
                assert sites.api.job(job)["backhaul"]["currentTask"] == task
                sites.api.cancel(job)
        else:
            assert sites.api.job(job)["backhaul"]["currentTask"] == task
            sites.api.cancel(job)
    sites.end(job, "Cancelled")
    sites.expect_as_before(vm, old)
    assert sites.digests(vm, sites.recovery) == recovery


@pytest.mark.parametrize("task,sync", [("Replicate", "ForDownTime"), ("FullDownload", "ForSynchronization")])
def test_a_cancel_in_the_middle_of_a_transfer_stops_it_at_once(sites, vm, task, sync):
    vm += sync[3].lower()
    old = sites.declare(vm, changed=1.0, transfer={"limit_bytes_per_s": 2 * MIB, "compress": "off"})
    job = sites.api.failover(vm, sync=sync)
    sites.wait_job(job, lambda now: now["backhaul"].get("progress", {}).get("bytesDone", 0) > 0)
    assert sites.api.job(job)["backhaul"]["currentTask"] == task
    sites.api.cancel(job)
    sites.end(job, "Cancelled")
    sites.expect_as_before(vm, old)


def test_once_the_target_is_being_started_a_cancel_is_refused(sites, vm):
    sites.declare(vm)
    with sites.home().hold(vm, "start") as held:
        job = sites.api.failover(vm, sync="ForSynchronization")
        held.wait()
        error = refused(sites.api.cancel, job)
        assert (error.status, error.code) == (409, "control.forbidden_in_phase")
        assert refused(sites.api.cancel_failover, vm).status == 409
    sites.end(job)
    sites.expect_powers(vm, recovery="off", primary="running")


# 5. Reverse Replicate ---------------------------------------------------------------------------------------------------

def test_the_circle_closes(sites, vm):
    sites.declare(vm, replication_minutes=1)
    sites.fail_back(vm)
    sites.end(sites.api.commit(vm))
    sites.home().write(vm, "os", 5 * MIB, "written at home before protection")
    reprotect = sites.end(sites.api.reprotect(vm))
    sent = sum(disk["payloadBytes"] for disk in reprotect["backhaul"]["round"]["disks"])
    assert 0 < sent < MIB, f"{sent} bytes: only changes go onto the kept base"
    item = sites.api.item(vm)
    assert item["protectionState"] == "Protected" and item["backhaul"]["lagSeconds"] >= 0
    sites.home().write(vm, "data", 3 * MIB, "written at home while protected")
    harness.wait_until(lambda: sites.digests(vm, sites.recovery) == sites.digests(vm, sites.home()), 60, "the next cycle")
    until = sites.api.item(vm)["backhaul"]["protectedUntil"]
    harness.wait_until(lambda: sites.api.item(vm)["backhaul"]["protectedUntil"] > until, 60, "the cycle after")

    with sites.home().hold(vm, "shut-down") as held:
        job = sites.api.failover(vm, direction="PrimaryToRecovery")
        held.wait()
        assert sites.api.job(job)["backhaul"]["direction"] == "PrimaryToRecovery"
        sites.home().write(vm, "os", 6 * MIB, "the last write at home")
    sites.end(job)
    sites.expect_powers(vm, recovery="running", primary="off")
    assert b"the last write at home" in sites.recovery.disk(vm, "os").read_bytes()
    sites.expect_home_equals_recovery(vm)
    sites.end(sites.api.commit(vm))
    assert sites.api.state(vm) == "FailoverCommitted", "as it began"
    sites.fail_back(vm)
    sites.expect_powers(vm, recovery="off", primary="running")


# 6. Alternate location --------------------------------------------------------------------------------------------------

def test_an_alternate_location_creates_the_vm_and_uses_an_older_copy(sites, vm):
    old = sites.declare(vm, changed=0.05)
    error = refused(sites.api.failover, vm, providerIdForAlternateRecovery="hv03", recoveryVmCreationOption="CreateVmIfNotFound")
    assert error.status == 409 and "LAN" in json.dumps(error.body), "the network is checked there"
    error = refused(sites.api.failover, vm, providerIdForAlternateRecovery="hv02")
    assert error.status in (400, 409) and "CreateVmIfNotFound" in json.dumps(error.body), "nobody said that it may be created"
    assert refused(sites.api.failover, vm, providerIdForAlternateRecovery="nowhere").status in (400, 404, 409)
    for name in DISKS:  # a restored backup
        harness.copy_sparse(sites.home("hv01").disk(vm, name), sites.home("hv02").disk(vm, name))
    job = sites.api.failover(vm, providerIdForAlternateRecovery="hv02", recoveryVmCreationOption="CreateVmIfNotFound")
    waiting = sites.suspended(job)
    assert 0 < sum(disk["payloadBytes"] for disk in waiting["backhaul"]["round"]["disks"]) < 0.2 * sum(DISKS.values()), "a delta"
    sites.api.resume(job)
    sites.end(job)
    sites.expect_powers(vm, recovery="off", primary="running", home="hv02")
    sites.expect_home_equals_recovery(vm, home="hv02")
    assert json.loads((sites.home("hv02").vms / vm / "vm.json").read_text())["memory_mib"] == 1024
    assert sites.digests(vm, sites.home("hv01")) == old, "the first location was left alone"


def test_undo_at_an_alternate_location_goes_back_to_the_first(sites, vm):
    sites.declare(vm, disks={"os": 2 * MIB})
    job = sites.api.failover(vm, sync="ForSynchronization", providerIdForAlternateRecovery="hv02", recoveryVmCreationOption="CreateVmIfNotFound")
    sites.end(job)
    assert sites.api.item(vm)["backhaul"]["declaration"]["primary"]["host"] == "hv02"
    sites.end(sites.api.cancel_failover(vm))
    assert sites.api.item(vm)["backhaul"]["declaration"]["primary"]["host"] == "hv01"
    sites.expect_powers(vm, recovery="running", primary="off", home="hv01")
