#!/usr/bin/python3
"""Runs libFuzzer programs side by side and prints one line each. The corpus of tests/fuzz/corpus/<name>/ is copied below
build/ first, so that a run changes nothing in the tree; what a fuzzer finds stays in build/fuzz-findings/<name>/.

    run.py --seconds N [--jobs N] PROGRAM...       exit 1 when a fuzzer found something
"""
import argparse
import concurrent.futures
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def last_number(pattern, text):
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


def fuzz(program, seconds):
    program = pathlib.Path(program).resolve()
    name = program.name.removesuffix("_fuzz")
    corpus, grown, found = (ROOT / "build" / part / name for part in ("fuzz-seeds", "fuzz-corpus", "fuzz-findings"))
    shutil.rmtree(corpus, ignore_errors=True)
    seeds = ROOT / "tests" / "fuzz" / "corpus" / name
    if seeds.is_dir():
        shutil.copytree(seeds, corpus)
    for folder in (corpus, grown, found):
        folder.mkdir(parents=True, exist_ok=True)
    log = ROOT / "build" / "logs" / f"fuzz-{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w") as out:
        code = subprocess.run([program, grown, corpus, f"-max_total_time={seconds}", f"-artifact_prefix={found}/",
                               "-print_final_stats=1", "-timeout=10", "-rss_limit_mb=2048"],
                              stdout=out, stderr=subprocess.STDOUT, cwd=found).returncode
    text = log.read_text(errors="replace")
    return {"name": name, "code": code, "log": log.relative_to(ROOT),
            "runs": last_number(r"stat::number_of_executed_units:\s*(\d+)", text),
            "rate": last_number(r"stat::average_exec_per_sec:\s*(\d+)", text),
            "coverage": last_number(r"cov: (\d+)", text), "corpus": last_number(r"corp: (\d+)", text),
            "rss": last_number(r"stat::peak_rss_mb:\s*(\d+)", text)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("programs", nargs="+")
    options = parser.parse_args()
    print(f"{len(options.programs)} fuzzers, {options.seconds} s each, {options.jobs} at a time", flush=True)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(lambda program: fuzz(program, options.seconds), options.programs))
    print(f"{'fuzzer':24} {'runs':>12} {'runs/s':>9} {'coverage':>9} {'corpus':>7} {'RSS MB':>7}  result")
    for row in rows:
        result = "nothing found" if row["code"] == 0 else f"FOUND SOMETHING: {row['log']}"
        print(f"{row['name']:24} {row['runs']:>12} {row['rate']:>9} {row['coverage']:>9} {row['corpus']:>7} {row['rss']:>7}  {result}")
    return 1 if any(row["code"] != 0 for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
