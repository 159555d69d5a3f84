"""`./dev bench` at its smoke size: the table and the result file are well-formed, and every figure stands on real transfers. No
figure's height is looked at."""
import json
import pathlib
import sys

import harness
import pytest

BENCH = harness.ROOT / "bench"
sys.path.insert(0, str(BENCH))
import against  # noqa: E402
PYTHON = "/usr/bin/python3"
# What each figure of the smoke run moves at least, in bytes: its changes, its data, or what a kernel digested.
LEAST = {"sha256": 1 << 20, "crc32c": 1 << 20, "stream": 1 << 20, "read-digest-memory": 24 << 20, "read-digest-disk": 24 << 20,
         "full-memory": 1 << 20, "full-disk": 1 << 20, "delta": 1 << 16, "delta-indexed": 1 << 16, "eight-disks": 1 << 20,
         "final-delta": 1 << 20, "empty-final-delta": 1 << 10, "long-networks": 1 << 20, "compression": 1 << 20, "growth": 1 << 20,
         "index-size": 1 << 20}


def is_count(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def check_row(row, least):
    assert is_count(row["value"]) and row["unit"] and row["better"] in ("higher", "lower"), row
    assert row["moved"] >= least, f"{row['name']} moved {row['moved']} bytes"
    assert row["samples"] and all(map(is_count, row["samples"])), row
    assert min(row["samples"]) <= row["value"] * 1.0001 and row["value"] <= max(row["samples"]) * 1.0001, row
    if row["ceiling"]:
        assert row["ceiling"]["what"] and (is_count(row["ceiling"].get("value")) != bool(row["ceiling"].get("missing"))), row
    for peer in row["peers"]:
        assert peer["name"] and (is_count(peer.get("value")) != bool(peer.get("missing"))), peer
    for aim in row["targets"]:
        assert aim["what"] and aim["sense"] in (">=", "<="), aim
        assert aim["met"] is (None if aim["got"] is None else aim["got"] >= aim["want"] if aim["sense"] == ">=" else aim["got"] <= aim["want"])


@pytest.mark.alone
def test_the_smoke_bench_measures_every_figure_from_real_transfers(folder):
    out = folder / "result.json"
    done = harness.run(PYTHON, BENCH / "run.py", "--smoke", "--out", out, "--disk", folder, timeout=560)
    result = json.loads(out.read_text())
    assert result["failed"] == {} and result["size"] == "smoke" and result["seconds"] > 0
    assert result["machine"]["cores"] >= 1 and result["machine"]["kernel"] and result["machine"]["commit"]

    names = [row["name"] for row in result["figures"]]
    assert len(names) == len(set(names)) >= len(LEAST)
    for row in result["figures"]:
        check_row(row, LEAST[row["figure"]])
    assert {row["figure"] for row in result["figures"]} == set(LEAST)

    table = done.stdout
    for row in result["figures"]:
        assert any(line.startswith(row["name"]) for line in table.splitlines()), row["name"]
        for peer in row["peers"]:
            assert peer["name"] in table and ("missing" not in peer or f"MISSING: {peer['missing']}" in table)
    assert f"result: {out}" in table
    assert not list(pathlib.Path("/dev/shm").glob(f"backhaul-bench-{result['pid']}-*")), "the bench left its files in memory"

    # The same result beside itself: nothing fell; a worse one: it is marked.
    same = harness.run(PYTHON, BENCH / "run.py", "--compare", out, out).stdout
    assert "FELL" not in same and "0 fell below" in same
    result["figures"][0].update(value=result["figures"][0]["value"] / 2, ratio=None)
    worse = folder / "worse.json"
    worse.write_text(json.dumps(result))
    marked = [line for line in harness.run(PYTHON, BENCH / "run.py", "--compare", out, worse).stdout.splitlines() if line.endswith("FELL")]
    assert len(marked) == 1 and marked[0].startswith(result["figures"][0]["name"])


def test_a_missing_peer_is_named_and_a_figure_that_fails_is_not_silent(folder):
    """Without any peer on PATH (only what is beside the program and the base system) the table says what is missing."""
    empty = folder / "bin"
    empty.mkdir()
    for program in ("sh", "sync", "cp", "cmp", "git", "stat", "dd"):
        (empty / program).symlink_to(f"/usr/bin/{program}")
    out = folder / "result.json"
    done = harness.run(PYTHON, BENCH / "run.py", "--smoke", "--only", "full-memory", "--only", "read-digest-disk", "--out", out, "--disk",
                       folder, timeout=300, env={"PATH": str(empty), "BACKHAUL_BIN": harness.program()})
    result = json.loads(out.read_text())
    assert result["failed"] == {}
    for name in ("qemu-img", "nbdcopy", "sshd", "fio"):
        assert f"{name} is not installed" in done.stdout, done.stdout
    assert any(aim["met"] is None for row in result["figures"] for aim in row["targets"])

    refused = harness.run(PYTHON, BENCH / "run.py", "--only", "no-such-figure", check=False)
    assert refused.returncode == 2 and "no figure" in refused.stderr


def wrapped(path, log, delay=""):
    """The program behind a script that notes its name for each run, and is late when it digests."""
    path.write_text(f'#!/bin/sh\necho "{path.name} $1" >> {log}\n[ "$1" = digest ] && {delay or ":"}\nexec {harness.program()} "$@"\n')
    path.chmod(0o755)
    return path


@pytest.mark.alone
def test_an_old_program_and_a_new_one_run_in_turn_and_a_slower_one_is_named(folder):
    log, out = folder / "log", folder / "against.json"
    old, new = wrapped(folder / "old", log), wrapped(folder / "new", log, "sleep 0.5")
    words = [PYTHON, BENCH / "run.py", "--smoke", "--disk", folder, "--out", out, "--against", old, "--new", new, "--only"]
    done = harness.run(*words, "read-digest-memory", "--rounds", "5", check=False, timeout=120)
    last = done.stdout.splitlines()[-1]
    assert done.returncode == 1 and last.startswith("below 0.97 beyond the noise: read and digest, memory"), done.stdout + done.stderr
    ran = [line.split()[0] for line in log.read_text().splitlines() if line.endswith("digest")]
    assert ran == ["old", "new", "new", "old"] * 2 + ["old", "new"]

    result = json.loads(out.read_text())
    for row in result["figures"]:
        for one in row["against"]:
            one["old"], one["new"] = one["new"], one["old"]
    text, below = against.table(result)
    assert below == [] and text.splitlines()[-1].startswith("below 0.97 beyond the noise: none"), text

    # Both programs serve the same store, each its own sends; one round says nothing about noise.
    log.unlink()
    done = harness.run(*words, "delta-indexed", timeout=120)
    assert "too few rounds" in done.stdout and done.stdout.splitlines()[-1].endswith("(0 of 2 figures judged)"), done.stdout
    assert {f"{name} {verb}" for name in ("old", "new") for verb in ("host", "send")} <= set(log.read_text().splitlines())


def test_noise_hides_no_loss_and_makes_none():
    def judge(old, new, better="higher"):
        return against.judge({"name": "a", "unit": "GB/s", "better": better, "old": old, "new": new})

    steady, wild = [1.0, 1.01, 0.99, 1.0, 1.02], [1.0, 2.0, 0.5, 1.5, 0.7]
    assert judge(steady, [0.9 * value for value in steady])["below"]
    assert judge(steady, [value / 0.9 for value in steady], "lower")["below"]
    assert not judge(steady, [0.98 * value for value in steady])["below"]
    assert not judge(steady, wild)["below"] and not judge(wild, [value / 3 for value in wild[1:] + wild[:1]])["below"]
    assert not judge([1.0] * 4, [0.5] * 4)["below"], "four rounds judged"
