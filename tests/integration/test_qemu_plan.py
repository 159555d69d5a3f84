"""A recovery plan with real guests: two VMs of two disks each, in two groups, fail back while they write."""
from contextlib import ExitStack

from qemu_sites import Watch


def test_a_plan_brings_two_guests_home_group_by_group(qemu_sites, folder):
    here, home, log = qemu_sites.recovery, qemu_sites.home(), folder / "actions"
    for vm in ("db", "web"):
        qemu_sites.make_guest(vm)

    def check(moment, condition):
        """An action that fails, and the plan with it, when its group is not alone in what was done."""
        return {moment: [{"name": moment, "command": ["sh", "-c", f"{condition} && echo {moment} >> {log}"], "timeout_s": 20}]}
    # The database boots first and is shut down last.
    web_is_down = f"grep -q 'BHREC bye' {here.console('web')} && ! grep -q 'BHREC bye' {here.console('db')}"
    db_is_up = f"test -e {home.vms}/db/qemu.pid && ! test -e {home.vms}/web/qemu.pid"
    groups = [{"name": "database", "items": ["db"], **check("after_boot", db_is_up)},
              {"name": "web", "items": ["web"], **check("after_shutdown", web_is_down)}]
    qemu_sites.api.call("PUT", "/replicationRecoveryPlans/shop", {"properties": {"groups": groups}})

    def plan(verb, properties=None):
        return qemu_sites.api.verb(f"/replicationRecoveryPlans/shop/{verb}", properties)
    details = {"instanceType": "HyperVReplicaAzureFailback", "dataSyncOption": "ForDownTime",
               "recoveryVmCreationOption": "CreateVmIfNotFound"}

    with ExitStack() as stack:
        away = {vm: stack.enter_context(Watch(here.console(vm))) for vm in ("db", "web")}
        back = {vm: stack.enter_context(Watch(home.console(vm))) for vm in ("db", "web")}
        for watch in away.values():
            watch.wait_for(3)
        job = plan("plannedFailover", {"providerSpecificDetails": [details]})
        qemu_sites.suspended(job, timeout=180)
        for watch in away.values():
            watch.wait_for_more(5)
        qemu_sites.api.resume(job)
        qemu_sites.end(job, timeout=180)
        assert log.read_text().split() == ["after_shutdown", "after_boot"]
        for vm in ("db", "web"):
            back[vm].expect_to_go_on_after(away[vm])
        qemu_sites.end(plan("failoverCommit"), timeout=120)
        for vm in ("db", "web"):
            assert here.qemu_pid(vm) is None
            qemu_sites.expect_records_at_home(vm, back[vm].wait_for_more())
