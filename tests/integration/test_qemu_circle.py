"""The whole circle with a real guest that writes all the way: home, protected in cycles, back to the recovery site, and home
again. Its numbered records never have a gap and never come twice."""
import harness
from qemu_sites import Watch


def cycles(sites, vm, count):
    """Waits until the recovery site has this many newer points in time."""
    for _ in range(count):
        until = sites.api.item(vm)["backhaul"]["protectedUntil"]
        harness.wait_until(lambda: sites.api.item(vm)["backhaul"]["protectedUntil"] > until, 120, "the next cycle")


def test_a_guest_goes_the_whole_circle_and_its_records_have_no_gap(qemu_sites):
    here, home, api = qemu_sites.recovery, qemu_sites.home(), qemu_sites.api
    qemu_sites.make_guest("web", replication_minutes=1)
    with Watch(here.console("web")) as away, Watch(home.console("web")) as back:
        away.wait_for(5)
        qemu_sites.fail_back("web", recoveryVmCreationOption="CreateVmIfNotFound")
        back.expect_to_go_on_after(away)
        qemu_sites.end(api.commit("web"))
        qemu_sites.end(api.reprotect("web"))
        protected = back.wait_for_more()
        cycles(qemu_sites, "web", 3)
        back.wait_for_more()

        qemu_sites.end(api.failover("web", direction="PrimaryToRecovery"), timeout=180)
        with Watch(here.console("web")) as away_again:
            away_again.expect_to_go_on_after(back)
            qemu_sites.end(api.commit("web"))
            assert api.state("web") == "FailoverCommitted", "as it began"
            assert home.qemu_pid("web") is None, "nothing has the disks at home open"
            away_again.wait_for_more()
            qemu_sites.fail_back("web")
            assert "compares everything" not in qemu_sites.host().log() + qemu_sites.appliance.log(), \
                "each way begins with what was written since the VM's start there"
            last = back.expect_to_go_on_after(away_again)
            qemu_sites.end(api.commit("web"))
    assert last > protected
    qemu_sites.expect_records_at_home("web", last)
