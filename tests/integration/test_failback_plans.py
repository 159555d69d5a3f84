"""Whole failbacks of recovery plans, by the command line, and by Microsoft's SDK, between real daemons over loopback TLS."""
import json
import time

import pytest

from harness import MIB
from sites import DISKS, Sites, node


@pytest.fixture(scope="module")
def shared(pki, tmp_path_factory):
    """A primary site and an appliance; each test has VMs of its own."""
    with Sites(tmp_path_factory.mktemp("sites"), pki) as both:
        yield both


@pytest.fixture
def sites(shared):
    """The same; whatever the test has left running is ended."""
    yield shared
    shared.settle()


# Recovery plans --------------------------------------------------------------------------------------------------------

@pytest.fixture
def plan(sites, vm, folder):
    """Two groups with a command at each moment that notes it and the VMs' states, and a manual action before the second boots."""
    database, web = f"{vm}-db", f"{vm}-web"
    for name in (database, web):
        sites.declare(name, disks={"os": 4 * MIB})
    log = folder / "log"

    def note(moment):
        states = " ".join(f"$(cat {place.vms}/{name}/state)" for name in (database, web) for place in (sites.recovery, sites.home()))
        return [{"name": moment, "command": ["sh", "-c", f"echo {moment} {states} >> {log}"], "timeout_s": 20}]
    moments = ("before_shutdown", "after_shutdown", "before_boot", "after_boot")
    groups = [{"name": group, "items": [name], **{moment: note(f"{group}-{moment}") for moment in moments}}
              for group, name in (("database", database), ("web", web))]
    groups[1]["before_boot"].append({"name": "look", "manual": True, "text": "Is the database up?"})
    sites.api.call("PUT", f"/replicationRecoveryPlans/{vm}", {"properties": {"groups": groups}})
    return vm, database, web, log


def plan_verb(sites, plan, verb):
    return sites.api.verb(f"/replicationRecoveryPlans/{plan}/{verb}")


def test_a_plan_shuts_down_and_boots_in_order_with_its_actions(sites, plan):
    name, database, web, log = plan
    job = plan_verb(sites, name, "plannedFailover")
    waiting = sites.suspended(job)
    assert waiting["scenarioName"] == "PlanPlannedFailover" and waiting["backhaul"]["waitingFor"] == "Complete Failover"
    sites.api.resume(job)
    manual = sites.wait_job(job, lambda now: now["state"] == "Suspended" and now["backhaul"].get("waitingFor") == "look: Is the database up?")
    assert "Resume" in manual["allowedActions"]
    sites.expect_powers(database, recovery="off", primary="running")
    sites.expect_powers(web, recovery="off", primary="off")
    sites.api.resume(job)
    sites.end(job)
    # States: database here, database at home, web here, web at home.
    assert log.read_text().splitlines() == [
        "web-before_shutdown running off running off", "web-after_shutdown running off off off",
        "database-before_shutdown running off off off", "database-after_shutdown off off off off",
        "database-before_boot off off off off", "database-after_boot off running off off",
        "web-before_boot off running off off", "web-after_boot off running off running"]
    for vm in (database, web):
        sites.expect_home_equals_recovery(vm, disks={"os": 0})
    sites.end(plan_verb(sites, name, "failoverCommit"))
    assert {sites.api.state(vm) for vm in (database, web)} == {"PlannedFailoverCommitted"}
    sites.end(plan_verb(sites, name, "reProtect"))
    assert {sites.api.state(vm) for vm in (database, web)} == {"Protected"}


def test_one_item_s_failure_stops_later_groups_and_only_it_is_repeated(sites, plan):
    name, database, web, log = plan
    broken = sites.home().vms / database / "does-not-start"
    broken.touch()
    job = plan_verb(sites, name, "plannedFailover")
    sites.suspended(job)
    sites.api.resume(job)
    failed = sites.end(job, "Failed")
    assert database in json.dumps(failed["errors"]) and "Restart" in failed["allowedActions"]
    sites.expect_powers(web, recovery="off", primary="off")
    children = {sites.api.job(child)["targetObjectName"]: (child, sites.api.job(child)["state"]) for child in failed["backhaul"]["children"]}
    assert children[database][1] == "Failed" and children[web][1] in ("InProgress", "Suspended"), children
    shutdowns = [line for line in log.read_text().splitlines() if "shutdown" in line]
    broken.unlink()
    sites.api.restart(job)
    sites.wait_job(job, lambda now: now["state"] == "Suspended" and now["backhaul"].get("waitingFor") == "look: Is the database up?")
    sites.api.resume(job)
    sites.end(job)
    assert [line for line in log.read_text().splitlines() if "shutdown" in line] == shutdowns, "what was done is not repeated"
    for vm in (database, web):
        sites.expect_powers(vm, recovery="off", primary="running")
        sites.expect_home_equals_recovery(vm, disks={"os": 0})


# The command line ------------------------------------------------------------------------------------------------------

def test_a_whole_failback_by_the_command_line(sites, vm):
    sites.declare(vm, changed=1.0, transfer={"limit_bytes_per_s": 4 * MIB, "compress": "off"})
    started = sites.cli("item", "failover", vm)
    job = started.stdout.split()[1]
    assert started.stdout == f"job {job}\n"
    progress = sites.wait_job(job, lambda now: now["backhaul"].get("progress", {}).get("bytesPerSecond", 0) > 0)["backhaul"]["progress"]
    assert 0 < progress["bytesTotal"] <= sum(DISKS.values()) and progress["secondsLeft"] > 0
    watched = sites.cli("job", "watch", job)
    assert "Replicate" in watched.stderr and "waits for Complete Failover" in watched.stdout and "allowed" in watched.stdout
    done = sites.cli_json("job", "resume", job, "--wait", "--comments", "go")
    assert done["properties"]["state"] == "Succeeded"
    assert any("go" in entry["detail"] for entry in sites.api.audit(object=f"job/{job}"))
    assert sites.cli_json("item", "commit", vm, "--wait")["properties"]["scenarioName"] == "Commit"
    assert "Succeeded" in sites.cli("item", "reprotect", vm, "--wait").stdout
    listed = sites.cli("job", "list", "--item", vm)
    assert [line.split()[1] for line in listed.stdout.splitlines()[1:]] == ["ReverseReplicate", "Commit", "PlannedFailover"]
    assert sites.cli_json("job", "list", "--item", vm, "--state", "Failed")["value"] == []
    assert [found["name"] for found in sites.cli_json("job", "list", "--item", vm, "--scenario", "PlannedFailover")["value"]] == [job]
    assert "root digests" in sites.cli("job", "show", job).stdout
    assert sites.cli("item", "remove", vm, "--wait").returncode == 0
    sites.expect_powers(vm, recovery="absent", primary="running")


@pytest.mark.parametrize("options", [["--complete", "automatic", "--downtime-budget", "3600"], ["--downtime-budget", "3600"],
                                     ["--complete", "scheduled", "--at", "SOON"], ["--at", "SOON"],
                                     ["--complete", "window", "--window-start", "PAST", "--window-end", "LATER"],
                                     ["--window-start", "PAST", "--window-end", "LATER", "--downtime-budget", "3600"]], ids=" ".join)
def test_who_says_complete_failover_is_an_option_of_the_command_line(sites, vm, options):
    sites.declare(vm, disks={"os": 2 * MIB})
    moments = {"PAST": -3600, "SOON": 1, "LATER": 3600}
    words = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + moments[word])) if word in moments else word for word in options]
    sites.end(sites.cli_json("item", "failover", vm, *words)["job"])
    sites.expect_powers(vm, recovery="off", primary="running")


def test_waiting_for_a_job_that_fails_or_is_cancelled_has_an_exit_code_of_its_own(sites, vm):
    sites.declare(vm, disks={"os": 2 * MIB}, shutdown={"timeout_s": 1, "allow_force": False})
    (sites.recovery.vms / vm / "ignores-power-button").touch()
    done = sites.cli("item", "failover", vm, "--sync", "ForSynchronization", "--wait", check=False)
    assert done.returncode == 3 and "Failed" in done.stdout, done
    done = sites.cli("item", "cancel", vm, "--wait")
    assert "CancelFailover" in done.stdout
    job = sites.cli_json("item", "failover", vm)["job"]
    sites.suspended(job)
    assert sites.cli("job", "cancel", job, "--wait").returncode == 0, "that is what was asked for"
    assert sites.cli("job", "watch", job, check=False).returncode == 4


# Microsoft's SDK --------------------------------------------------------------------------------------------------------

def sdk(sites, *words):
    return node("failback.mjs", sites, *words)


def test_the_sdk_drives_a_failback_with_its_least_downtime(sites, vm):
    sites.declare(vm)
    found = sdk(sites, "downtime", vm)
    assert found["waiting"]["state"] == "Suspended" and set(found["waiting"]["allowedActions"]) == {"Resume", "Cancel"}
    assert found["completed"]["state"] == "Succeeded" and found["pending"] == "PlannedFailoverCommitPending"
    assert [state for _, state in found["completed"]["tasks"]] == ["Succeeded"] * 7
    assert (found["committed"], found["reprotected"]) == ("PlannedFailoverCommitted", "Protected")
    sites.expect_powers(vm, recovery="absent", primary="running")
    sites.expect_home_equals_recovery(vm)


def test_the_sdk_drives_a_full_download(sites, vm):
    sites.declare(vm)
    found = sdk(sites, "synchronization", vm)
    assert found["done"]["protectionState"] == "PlannedFailoverCommitPending"
    assert [(job["scenarioName"], job["targetObjectName"]) for job in found["jobs"]] == [("PlannedFailover", vm)]
    sites.expect_home_equals_recovery(vm)
    assert sdk(sites, "jobs", f"ItemName eq '{vm}' and JobStatus eq 'Failed'")["jobs"] == []


def test_the_sdk_cancels_and_undoes(sites, vm):
    old = sites.declare(vm)
    found = sdk(sites, "cancel", vm)
    assert found["cancelled"]["state"] == "Cancelled" and found["state"] == "FailoverCommitted"
    sites.expect_as_before(vm, old)
    assert sdk(sites, "undo", vm)["state"] == "FailoverCommitted"
    sites.expect_powers(vm, recovery="running", primary="off")


def test_the_sdk_makes_a_plan_and_fails_it_over(sites, vm):
    ids = [f"{vm}-{number}" for number in (1, 2)]
    for item in ids:
        sites.declare(item, disks={"os": 2 * MIB})
    found = sdk(sites, "plan", vm, *ids)
    assert found["waiting"]["state"] == "Suspended" and found["completed"]["state"] == "Succeeded"
    assert found["states"] == ["PlannedFailoverCommitted"] * 2
    for item in ids:
        sites.expect_powers(item, recovery="absent", primary="running")
        sites.expect_home_equals_recovery(item, disks={"os": 0})
