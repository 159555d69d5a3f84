"""Either end is killed at any moment; the same command again brings the whole disk, and sends nothing twice that was
recorded as durable. In between no torn disk stands at the disk's name."""
import os
import signal
import time

import harness
import pytest
import unfinished
from harness import BLOCK, MIB
from unfinished import DISK, LIMIT, SOAK, Scenario, arena, disks  # noqa: F401: the last two are fixtures

SCENARIOS = [
    (Scenario("full", "raw", old=False, lanes=1), "source"),
    (Scenario("full", "vhdx", old=False, lanes=4), "host"),
    (Scenario("full", "vhdx-fixed", lanes=2), "both"),
    (Scenario("full", "raw", "undo", lanes=3), "host"),
    (Scenario("full", "vhdx", "clone", filesystem="xfs", lanes=2), "source"),
    (Scenario("delta", "raw", "undo", lanes=4), "host"),
    (Scenario("delta", "raw", "undo", lanes=1), "both"),
    (Scenario("delta", "vhdx", "undo", lanes=2), "source"),
    (Scenario("delta", "vhdx", "undo", lanes=3), "host"),
    (Scenario("delta", "vhdx-fixed", "undo", lanes=2), "host"),
    (Scenario("delta", "raw", "clone", filesystem="xfs", lanes=3), "both"),
    (Scenario("delta", "vhdx", "clone", filesystem="btrfs", lanes=2), "host"),
    (Scenario("delta", "vhdx-fixed", "clone", filesystem="xfs", lanes=4), "both"),
]


def cut_off(host, pki, scenario, disks, victim, seconds):
    """Starts a send and kills `victim` after that many seconds. True when the send was still running."""
    started = time.monotonic()
    with harness.sending(host, pki, disks.source, DISK, **scenario.options(limit=LIMIT)) as sender:
        unfinished.sleep_until(started + seconds)
        running = sender.poll() is None
        if victim in ("host", "both"):
            host.kill()
        if victim in ("source", "both"):
            sender.kill()
        elif running:
            sender.send_signal(signal.SIGTERM)  # it would go on by itself; that is another test's matter
        sender.wait(60)
    return running


def swaps_of(host):
    return sum("swapped in" in line for line in host.lines)


def expect_resume(host, pki, scenario, disks, **options):
    """The same command again: equal disks, and nothing that was recorded is sent again."""
    recorded, swaps = unfinished.recorded_bytes(host.store), swaps_of(host)
    result = harness.send(host, pki, disks.source, DISK, **scenario.options(**options))
    harness.wait_until(lambda: swaps_of(host) > swaps, 10, "the swap in the log")
    if swaps_of(host) > swaps + 1:
        recorded = 0  # the host agent still finished the run whose sender was killed
    assert result["resumed_bytes"] >= recorded
    assert result["payload_bytes"] + recorded <= disks.payload(scenario)
    assert result["payload_bytes"] + result["resumed_bytes"] <= disks.payload(scenario)
    assert result["root_digest_source"] == result["root_digest_target"]
    unfinished.expect_new_disk(host.store, scenario, disks)
    return recorded


@pytest.mark.parametrize("scenario,victim", SCENARIOS, ids=str)
def test_the_same_command_goes_on_after_a_kill(arena, pki, seed, disks, scenario, victim):
    host = arena
    whole = unfinished.measure_run(host, pki, scenario, disks)
    running = 0
    for number, moment in enumerate(unfinished.moments(seed, f"kill {scenario} {victim}", 4 * SOAK)):
        unfinished.put_old_disk(host.store, scenario, disks)
        print(f"{victim} killed at {moment:.3f} of {whole:.2f} s")
        running += cut_off(host, pki, scenario, disks, victim, moment * whole)
        if number % 2 == 1:  # and killed again during the resume
            if host.process is None:
                host.start()
            cut_off(host, pki, scenario, disks, victim, moment * whole / 2)
        if host.process is None:
            unfinished.expect_nothing_torn(host.store, scenario, disks)
            if number % 4 >= 2:
                host.port = 0  # a new one
            host.start()
        recorded = expect_resume(host, pki, scenario, disks)
        print(f"{recorded} bytes were recorded of {disks.payload(scenario)}")
    assert running > 0, "no moment hit a running transfer"


HALF_WAY = [Scenario("full", "raw", old=False), Scenario("delta", "vhdx", "undo", lanes=3), Scenario("delta", "raw", "undo", lanes=1)]


@pytest.mark.parametrize("victim", ["source", "host"])
@pytest.mark.parametrize("scenario", HALF_WAY, ids=str)
def test_what_was_recorded_before_a_kill_is_not_sent_again(arena, pki, disks, scenario, victim):
    """The kill comes when part of the content is known to be recorded, so that there is something to resume."""
    host = arena
    recorded = unfinished.cut_off_half_way(host, pki, scenario, disks, victim)
    if victim == "host":
        unfinished.expect_nothing_torn(host.store, scenario, disks)
        host.start()
        assert "unfinished transfer of vm/disk: run the same send again" in host.log()
    assert expect_resume(host, pki, scenario, disks) >= recorded > 0


@pytest.mark.parametrize("scenario", [Scenario("full", "vhdx", old=False), Scenario("delta", "raw", "undo", lanes=4)], ids=str)
def test_a_sender_that_is_told_to_stop_stops_and_can_be_resumed(arena, pki, seed, disks, scenario):
    host = arena
    whole = unfinished.measure_run(host, pki, scenario, disks)
    stopped = 0
    for moment in unfinished.moments(seed, f"stop {scenario}", 3 * SOAK, 0.0, 0.9):
        unfinished.put_old_disk(host.store, scenario, disks)
        started = time.monotonic()
        with harness.sending(host, pki, disks.source, DISK, **scenario.options(limit=LIMIT)) as sender:
            unfinished.sleep_until(started + moment * whole)
            sender.send_signal(signal.SIGTERM)
            out, _ = sender.communicate(timeout=30)
        if sender.returncode == 0:  # it came too late
            unfinished.expect_new_disk(host.store, scenario, disks)
            continue
        if sender.returncode > 0:  # negative: the signal came before the program had its handler
            stopped += 1
            assert harness.last_json(out)["error"]["code"].endswith("cancelled")
        expect_resume(host, pki, scenario, disks)
    assert stopped > 0


@pytest.mark.parametrize("scenario", [Scenario("full", "raw", old=False), Scenario("delta", "vhdx", "undo", lanes=4),
                                      Scenario("delta", "raw", "clone", filesystem="xfs")], ids=str)
def test_a_sender_outlives_restarts_of_the_host_agent(arena, pki, seed, disks, scenario):
    """The sender goes on by itself, sends little twice, and says how often it tried."""
    host, total = arena, disks.payload(scenario)
    whole = unfinished.measure_run(host, pki, scenario, disks)
    retries = 0
    for moment in unfinished.moments(seed, f"outlive {scenario}", 3 * SOAK, 0.15, 0.85):
        unfinished.put_old_disk(host.store, scenario, disks)
        started = time.monotonic()
        with harness.sending(host, pki, disks.source, DISK, **scenario.options(limit=LIMIT)) as sender:
            unfinished.sleep_until(started + moment * whole)
            host.kill()
            recorded = unfinished.recorded_bytes(host.store)
            host.start()
            out, errors = sender.communicate(timeout=120)
        assert sender.returncode == 0, f"{out}{errors}"
        result = harness.last_json(out)
        retries += result["retries"]
        # What was sent before the kill is at most everything; after it, at most what was not recorded. What was recorded and not yet
        # acknowledged when the kill came is told as resumed.
        assert total - recorded <= result["payload_bytes"] + result["resumed_bytes"]
        assert result["payload_bytes"] <= 2 * total - recorded and result["resumed_bytes"] <= total
        assert result["root_digest_source"] == result["root_digest_target"]
        unfinished.expect_new_disk(host.store, scenario, disks)
    assert retries > 0, "no restart hit a running transfer"


def test_a_restart_costs_no_more_than_what_was_not_acknowledged(host, pki, folder, seed):
    """The same in numbers: over all runs, the content plus what one checkpoint interval can hold."""
    source = harness.make_image(folder / "source.raw", 160 * MIB, "dense", seed)
    with harness.sending(host, pki, source, "disk", sync="full", lanes=2, limit="32M", compress="off") as sender:
        index = host.path(".disk.backhaul/index")
        harness.wait_until(lambda: index.exists() and os.stat(index).st_blocks > 16, 60, "a first checkpoint")
        time.sleep(0.8)
        host.kill()
        host.start()
        out, errors = sender.communicate(timeout=120)
    assert sender.returncode == 0, errors
    result = harness.last_json(out)
    assert result["retries"] > 0
    assert 160 * MIB <= result["payload_bytes"] + BLOCK <= 160 * MIB + 96 * MIB
    harness.run("cmp", source, host.path("disk"))


@pytest.mark.parametrize("scenario", [Scenario("delta", "raw", "undo", lanes=1), Scenario("delta", "vhdx", "undo"),
                                      Scenario("full", "vhdx", lanes=1),
                                      Scenario("delta", "raw", "clone", filesystem="btrfs")], ids=str)
def test_a_kill_during_the_finish_leaves_a_whole_disk(arena, pki, seed, disks, scenario):
    """Many short runs, killed near their end; some exactly when the journal says that the swap has begun."""
    host = arena
    unfinished.put_old_disk(host.store, scenario, disks)
    started = time.monotonic()
    harness.send(host, pki, disks.source, DISK, **scenario.options())
    whole = time.monotonic() - started
    for number, moment in enumerate(unfinished.moments(seed, f"finish {scenario}", 4 * SOAK, 0.6, 1.02)):
        unfinished.put_old_disk(host.store, scenario, disks)
        started = time.monotonic()
        with harness.sending(host, pki, disks.source, DISK, **scenario.options()) as sender:
            if number >= 2:
                while sender.poll() is None and unfinished.session_state(host.store) != unfinished.FINISHING:
                    pass
            else:
                unfinished.sleep_until(started + moment * whole)
            host.kill()
            if number % 2 == 0:
                sender.kill()
            state = unfinished.session_state(host.store)
            unfinished.expect_nothing_torn(host.store, scenario, disks)
            host.start()
            if state == unfinished.FINISHING:
                assert "unfinished transfer of vm/disk: finished" in host.log()
                if number % 2 == 0:  # a living sender compares once more
                    unfinished.expect_new_disk(host.store, scenario, disks)
            out, errors = sender.communicate(timeout=120)
        if number % 2 == 1:
            assert sender.returncode == 0, f"{out}{errors}"
        expect_resume(host, pki, scenario, disks)


def test_a_store_without_leftovers_says_nothing(host, pki, folder, seed):
    source = harness.make_image(folder / "source.raw", 4 * MIB, "mixed", seed)
    harness.send(host, pki, source, "disk")
    host.stop()
    host.lines.clear()
    host.start()
    assert "unfinished" not in host.log()
