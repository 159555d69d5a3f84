"""Cancel gives the old disk back, byte for byte, whatever was killed before, meanwhile or not at all; and who was
cancelled or superseded can write nothing more."""
import signal
import subprocess
import time

import harness
import pytest
import unfinished
from unfinished import DISK, LIMIT, SOAK, Scenario, arena, disks  # noqa: F401: the last two are fixtures

# Who is killed before the cancel: nobody (the sender goes on sending), the sender, the host agent and the sender, or the
# host agent alone (the sender is cut off and tries to come back while it is cancelled).
SCENARIOS = [
    (Scenario("delta", "raw", "undo", lanes=4), "nobody"),
    (Scenario("delta", "vhdx", "undo", lanes=2), "nobody"),
    (Scenario("delta", "vhdx-fixed", "undo", lanes=1), "source"),
    (Scenario("delta", "vhdx", "undo", lanes=3), "both"),
    (Scenario("delta", "raw", "undo", lanes=2), "both"),
    (Scenario("delta", "raw", "undo", lanes=2), "host"),
    (Scenario("full", "vhdx", "undo", lanes=2), "source"),
    (Scenario("full", "vhdx", lanes=4), "nobody"),
    (Scenario("full", "raw", old=False, lanes=2), "both"),
    (Scenario("delta", "vhdx", "clone", filesystem="xfs", lanes=3), "nobody"),
    (Scenario("delta", "raw", "clone", filesystem="xfs", lanes=2), "both"),
    (Scenario("delta", "vhdx-fixed", "clone", filesystem="btrfs", lanes=1), "source"),
    (Scenario("delta", "vhdx", "clone", filesystem="btrfs", lanes=2), "host"),
]
GONE = {"session.cancelled", "session.fenced", "session.unknown"}


def send_in_background(host, pki, scenario, disks, limit=LIMIT):
    return harness.sending(host, pki, disks.source, DISK, **scenario.options(limit=limit))


def expect_cancelled(host, pki, scenario, disks):
    """Everything that holds after a cancel, and a later send goes through."""
    unfinished.expect_no_session(host.store)
    unfinished.expect_old_disk(host.store, scenario, disks)
    assert harness.cancel(host, pki, DISK)["cancelled"] is False
    harness.send(host, pki, disks.source, DISK, **scenario.options())
    unfinished.expect_new_disk(host.store, scenario, disks)


@pytest.mark.parametrize("scenario,victim", SCENARIOS, ids=str)
def test_cancel_gives_the_old_disk_back(arena, pki, seed, disks, scenario, victim):
    host = arena
    whole = unfinished.measure_run(host, pki, scenario, disks)
    cancelled = 0
    for moment in unfinished.moments(seed, f"cancel {scenario} {victim}", 4 * SOAK):
        unfinished.put_old_disk(host.store, scenario, disks)
        print(f"{victim} killed and cancelled at {moment:.3f} of {whole:.2f} s")
        started, opened = time.monotonic(), sum("opened by" in line for line in host.lines)
        with send_in_background(host, pki, scenario, disks) as sender:
            if victim == "host":  # who has not been told of a transfer yet would begin one, cancelled or not
                harness.wait_until(lambda: opened < sum("opened by" in line for line in host.lines), 60, "the transfer's start")
                started = time.monotonic() + 0.1
            unfinished.sleep_until(started + moment * whole)
            if victim in ("host", "both"):
                host.kill()
            if victim in ("source", "both"):
                sender.kill()
                sender.wait()
            if host.process is None:
                host.start()
            given_back = harness.cancel(host, pki, DISK)["cancelled"]
            if victim == "source" and not given_back:  # the host agent may only now read what the dead sender asked for
                time.sleep(0.5)
                given_back = harness.cancel(host, pki, DISK)["cancelled"]
            while victim in ("nobody", "host") and not given_back and sender.poll() is None:
                time.sleep(0.02)  # the cancel came before the transfer began
                given_back = harness.cancel(host, pki, DISK)["cancelled"]
            out, errors = sender.communicate(timeout=60)
        cancelled += given_back
        if sender.returncode == 0:  # too late: the new disk was there before
            assert not given_back
            unfinished.expect_new_disk(host.store, scenario, disks)
            continue
        if victim in ("nobody", "host"):
            assert given_back and harness.last_json(out)["error"]["code"] in GONE, f"{out}{errors}"
        if given_back or not was_finished(host, scenario, disks):
            expect_cancelled(host, pki, scenario, disks)
    assert cancelled > 0, "no moment hit an unfinished transfer"


def was_finished(host, scenario, disks):
    """Nothing to cancel: either it never began, or the kill came after the swap. Then the new disk is whole."""
    path = host.path(DISK)
    if not path.exists() or (scenario.old and unfinished.sha256(path) == disks.old_sha256[scenario.disk_format]):
        return False
    unfinished.expect_new_disk(host.store, scenario, disks)
    return True


@pytest.mark.parametrize("scenario", [Scenario("delta", "raw", "undo"), Scenario("delta", "vhdx", "undo"),
                                      Scenario("delta", "vhdx", "clone", filesystem="xfs"),
                                      Scenario("full", "raw", lanes=1)], ids=str)
def test_a_cancel_that_is_killed_goes_forward_at_the_next_start(arena, pki, seed, disks, scenario):
    host = arena
    unfinished.cut_off_half_way(host, pki, scenario, disks)
    started = time.monotonic()
    assert harness.cancel(host, pki, DISK)["cancelled"]
    whole = time.monotonic() - started
    for number, moment in enumerate(unfinished.moments(seed, f"cancel twice {scenario}", 4 * SOAK)):
        unfinished.cut_off_half_way(host, pki, scenario, disks)
        words = [harness.program(), "cancel", host.url(DISK), "--tls", str(pki.appliance), "--json"]
        started = time.monotonic()
        canceller = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            if number % 2 == 1:  # as soon as the journal has it
                while canceller.poll() is None and unfinished.session_state(host.store) != unfinished.CANCELLING:
                    pass
            else:
                unfinished.sleep_until(started + moment * whole)
            host.kill()
        finally:
            canceller.kill()
            canceller.communicate()
        state = unfinished.session_state(host.store)
        print(f"killed at {moment:.3f} of {whole:.3f} s, state {state}")
        unfinished.expect_nothing_torn(host.store, scenario, disks)
        host.start()
        if state == unfinished.CANCELLING:
            assert "gave back the old disk" in host.log()
        elif state == unfinished.TRANSFERRING:  # the cancel was not recorded yet
            assert harness.cancel(host, pki, DISK)["cancelled"]
        expect_cancelled(host, pki, scenario, disks)


@pytest.mark.parametrize("scenario", [Scenario("delta", "raw", "undo")], ids=str)
def test_there_is_nothing_to_cancel(arena, pki, disks, scenario):
    host = arena
    assert harness.cancel(host, pki, "no/such/disk")["cancelled"] is False
    unfinished.put_old_disk(host.store, scenario, disks)
    assert harness.cancel(host, pki, DISK)["cancelled"] is False
    words = [harness.program(), "cancel", host.url(DISK), "--tls", pki.appliance]
    assert "there was no unfinished transfer" in harness.run(*words).stdout
    unfinished.expect_old_disk(host.store, scenario, disks)


SLOW = "8M"  # time to be stopped in the middle
UNDO_AND_CLONE = [Scenario("delta", "raw", "undo"), Scenario("delta", "vhdx", "clone", filesystem="xfs")]


def wait_until_writing(host, sender):
    harness.wait_until(lambda: sender.poll() is not None or unfinished.recorded_bytes(host.store) > 0, 60)
    assert sender.poll() is None


def expect_fenced(sender, codes=GONE):
    out, errors = sender.communicate(timeout=60)
    assert sender.returncode != 0, out
    assert harness.last_json(out)["error"]["code"] in codes, f"{out}{errors}"


@pytest.mark.parametrize("scenario", UNDO_AND_CLONE, ids=str)
def test_a_frozen_sender_that_was_cancelled_writes_nothing_more(arena, pki, disks, scenario):
    """The first sender freezes; a second finds the disk busy; a cancel ends both. The first wakes up: too late."""
    host = arena
    unfinished.put_old_disk(host.store, scenario, disks)
    with send_in_background(host, pki, scenario, disks, SLOW) as first:
        wait_until_writing(host, first)
        first.send_signal(signal.SIGSTOP)
        with send_in_background(host, pki, scenario, disks) as second:
            harness.wait_until(lambda: "session.busy" in host.log(), 60, "the second sender being told that the disk is busy")
            assert second.poll() is None, "it should try again"
            second.kill()
        assert harness.cancel(host, pki, DISK)["cancelled"]
        unfinished.expect_old_disk(host.store, scenario, disks)
        first.send_signal(signal.SIGCONT)
        expect_fenced(first)
    expect_cancelled(host, pki, scenario, disks)


@pytest.mark.parametrize("scenario", UNDO_AND_CLONE, ids=str)
def test_a_sender_that_was_cut_off_does_not_begin_anew_after_a_cancel(arena, pki, disks, scenario):
    """The host agent restarts and forgets who was connected; the cancel comes before the sender is back."""
    host = arena
    unfinished.put_old_disk(host.store, scenario, disks)
    with send_in_background(host, pki, scenario, disks, SLOW) as sender:
        wait_until_writing(host, sender)
        sender.send_signal(signal.SIGSTOP)
        host.kill()
        host.start()
        assert harness.cancel(host, pki, DISK)["cancelled"]
        sender.send_signal(signal.SIGCONT)
        expect_fenced(sender)
    expect_cancelled(host, pki, scenario, disks)


@pytest.mark.parametrize("scenario", UNDO_AND_CLONE, ids=str)
def test_a_sender_that_was_cut_off_leaves_the_disk_to_another_transfer(arena, pki, disks, scenario):
    """As before, but another transfer of the same disk has begun since the cancel, and was itself cut off: the first must
    not take it for its own, of which it believes parts to be there already."""
    host = arena
    unfinished.put_old_disk(host.store, scenario, disks)
    with send_in_background(host, pki, scenario, disks, SLOW) as first:
        wait_until_writing(host, first)
        first.send_signal(signal.SIGSTOP)
        host.kill()
        host.start()
        assert harness.cancel(host, pki, DISK)["cancelled"]
        with send_in_background(host, pki, scenario, disks, SLOW) as second:
            wait_until_writing(host, second)
            second.kill()
        first.send_signal(signal.SIGCONT)
        expect_fenced(first)
    assert unfinished.session_state(host.store) == unfinished.TRANSFERRING
    harness.send(host, pki, disks.source, DISK, **scenario.options())
    unfinished.expect_new_disk(host.store, scenario, disks)


@pytest.mark.parametrize("scenario", UNDO_AND_CLONE, ids=str)
def test_a_superseded_sender_leaves_the_disk_to_the_newer_run(arena, pki, disks, scenario):
    host = arena
    unfinished.put_old_disk(host.store, scenario, disks)
    with send_in_background(host, pki, scenario, disks, SLOW) as first:
        wait_until_writing(host, first)
        first.send_signal(signal.SIGSTOP)
        host.kill()
        host.start()
        with send_in_background(host, pki, scenario, disks) as second:
            harness.wait_until(lambda: "resumed" in host.log(), 60, "the second sender taking over")
            first.send_signal(signal.SIGCONT)
            out, errors = second.communicate(timeout=120)
            assert second.returncode == 0, f"{out}{errors}"
        expect_fenced(first)
    unfinished.expect_new_disk(host.store, scenario, disks)
