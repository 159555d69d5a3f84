"""The answer to `finish` is lost after the swap: the sender asks again, hears that it is done, and begins nothing new."""
import threading
import time

import harness
import pytest
import unfinished
from proxy import FROM_HOST, Fault, Proxy
from unfinished import DISK, Scenario

CASES = [
    (Scenario("delta", "raw", "undo"), "written"),
    (Scenario("delta", "raw", "undo"), "none"),
    (Scenario("delta", "vhdx", "undo"), "full"),
    (Scenario("full", "vhdx"), "written"),
    (Scenario("full", "raw", old=False), "none"),
    (Scenario("delta", "vhdx", "clone", filesystem="xfs"), "written"),
]


@pytest.fixture(scope="module")
def disks(tmp_path_factory, seed):
    return unfinished.make_disks(tmp_path_factory.mktemp("disks"), seed)


@pytest.fixture
def host(request, folder, pki):
    try:
        with unfinished.store_on(request.getfixturevalue("scenario"), folder) as store, harness.Host(store, pki) as agent:
            yield agent
    except harness.CannotMount as reason:
        pytest.skip(f"cannot mount here: {reason}")


@pytest.mark.parametrize("killed", [False, True], ids=["cut", "killed"])
@pytest.mark.parametrize("scenario,verify", CASES, ids=str)
def test_a_sender_whose_last_answer_was_lost_ends_well_without_a_second_session(host, pki, disks, scenario, verify, killed):
    unfinished.put_old_disk(host.store, scenario, disks)
    path = host.path(DISK)
    last = path.parent / f".{path.name}.last"
    struck, dead = threading.Event(), threading.Event()

    def swapped():
        if not last.exists():
            return False
        struck.set()
        return not killed or dead.wait(60)

    # Connection 0 is the control stream; what the host says there after the swap is `finished`.
    with Proxy(host.port, lambda number, way: Fault(cut_when=swapped) if number == 0 and way == FROM_HOST else None) as proxy:
        with harness.sending(proxy, pki, disks.source, DISK, **scenario.options(verify=verify)) as sender:
            while sender.poll() is None:
                if last.exists():
                    assert path.exists(), "the finished disk lost its name"
                if killed and struck.is_set() and not dead.is_set():
                    host.kill()
                    dead.set()
                    host.start()
                time.sleep(0.002)
            out, errors = sender.communicate(timeout=60)
        assert proxy.cuts == 1
    assert sender.returncode == 0, f"{out}{errors}"
    result = harness.last_json(out)
    assert result["retries"] >= 1
    assert verify == "none" or result["root_digest_source"] == result["root_digest_target"] is not None
    assert sum("opened by" in line for line in host.lines) == 1, host.log()
    unfinished.expect_new_disk(host.store, scenario, disks)
    assert harness.cancel(host, pki, DISK)["cancelled"] is False
    unfinished.expect_new_disk(host.store, scenario, disks)
    # A later send starts from the finished disk.
    again = harness.send(host, pki, disks.source, DISK, **scenario.options(sync="delta", staging="auto"))
    assert again["payload_bytes"] == 0 and again["epoch"] > result["epoch"]
