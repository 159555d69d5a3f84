#!/usr/bin/python3
"""`./dev bench`: measures every figure beside its ceiling and the peers in one run, prints one table and writes a result file.

    ./dev bench [--quick | --smoke] [--only NAME ...] [--out FILE]   measure (about 20 minutes, 5, or seconds)
    ./dev bench --against OLD [--new NEW]                            an old and a new program in turn: ratios and their noise
    ./dev bench --compare OLD.json [NEW.json]                        ratios per figure; without NEW.json measures first
    ./dev bench --document                                           the table goes into docs/BENCHMARKING.md, too
    ./dev bench --plots DIR                                          sweeps as SVG instead of the table

docs/BENCHMARKING.md says what the figures mean and which comparisons mean nothing.
"""
import argparse
import json
import os
import pathlib
import resource
import signal
import sys
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import against
import bed as beds
import machine
import report
from measure import Failed, Missing
from rows import FIGURES, OF_THE_PROGRAM

import kernels, copies, finals, networks, growth  # noqa: E401,F401  (each registers its figures, in the table's order)


def parse(words):
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="smaller disks, about five minutes")
    size.add_argument("--smoke", action="store_true", help="tiny and once: checks that the figures can be measured, not what they are")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this figure (may be given again): " + ", ".join(FIGURES))
    parser.add_argument("--rounds", type=int, help="runs of each contestant instead of 5 (with --against 10)")
    parser.add_argument("--out", type=pathlib.Path, help="result file (default: build/bench/result.json; with --against, against.json)")
    parser.add_argument("--against", type=pathlib.Path, metavar="PROGRAM", help="an old `backhaul`: both run all figures of the program; "
                        "exit 1 when one is below %g of the old one beyond the noise" % against.LEAST)
    parser.add_argument("--new", type=pathlib.Path, metavar="PROGRAM", help="with --against: the new one (default: build/release/backhaul)")
    parser.add_argument("--compare", nargs="+", type=pathlib.Path, metavar="FILE", help="an old result, and a new one if there is one")
    parser.add_argument("--disk", help="a folder on the disk to measure (default: TMPDIR or /var/tmp)")
    parser.add_argument("--document", action="store_true", help="write the table into docs/BENCHMARKING.md as well")
    parser.add_argument("--plots", type=pathlib.Path, metavar="DIR", help="draw the sweeps into this folder")
    options = parser.parse_args(words)
    for name in options.only:
        known = OF_THE_PROGRAM if options.against else FIGURES
        if name not in known:
            parser.error(f"no figure '{name}'; there are: {', '.join(known)}")
    if options.compare and len(options.compare) > 2:
        parser.error("--compare takes an old result and at most one new one")
    if options.against and (options.compare or options.document or options.plots):
        parser.error("--against stands alone")
    if options.new and not options.against:
        parser.error("--new goes with --against")
    options.programs = [options.against, options.new or beds.harness.program()] if options.against else [beds.harness.program()]
    options.programs = [pathlib.Path(program).resolve() for program in options.programs]
    for program in options.programs if options.against else []:
        if not os.access(program, os.X_OK):
            parser.error(f"{program} is no program")
    options.out = options.out or beds.ROOT / "build" / "bench" / ("against.json" if options.against else "result.json")
    return options


def own_cpu():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def measure(options):
    name = "smoke" if options.smoke else "quick" if options.quick else "full"
    sizes = {"smoke": beds.SMOKE, "quick": beds.QUICK, "full": beds.FULL}[name]
    if options.rounds or options.against and not options.smoke:
        sizes.rounds = options.rounds or 2 * sizes.rounds  # noise shows in many rounds only
    options.out.parent.mkdir(parents=True, exist_ok=True)
    started, before, own = time.monotonic(), machine.busy_seconds(), own_cpu()
    result = {"version": 1, "size": name, "rounds": sizes.rounds, "pid": os.getpid(), "figures": [], "failed": {},
              "programs": [str(program) for program in options.programs]}
    with beds.Bed(sizes, disk_folder=options.disk, programs=options.programs) as bed:
        result["machine"] = machine.facts(beds.ROOT, bed.parents)
        for figure in options.only or (OF_THE_PROGRAM if options.against else FIGURES):
            began = time.monotonic()
            try:
                result["figures"] += [{"figure": figure, **line} for line in FIGURES[figure](bed)]
            except (Failed, Missing, AssertionError, OSError) as reason:  # the other figures are still worth having
                result["failed"][figure] = str(reason) or repr(reason)
                traceback.print_exc()
            print(f"{figure}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
            # After each figure: a run that is ended early leaves what it has.
            seconds, after = time.monotonic() - started, machine.busy_seconds()
            all_time = seconds * result["machine"]["cores"]
            result["seconds"] = seconds
            result["others_share"] = max(0.0, (after["busy"] - before["busy"] - (own_cpu() - own)) / all_time)
            result["stolen_share"] = max(0.0, (after["stolen"] - before["stolen"]) / all_time)
            options.out.write_text(json.dumps(result, indent=1) + "\n")
    return result


def main(words):
    options = parse(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that daemons and gigabytes in memory do not stay behind
    if options.plots:
        import plots
        return plots.draw(options.plots, beds.QUICK if not options.smoke else beds.SMOKE)
    if options.against:
        result = measure(options)
        text, below = against.table(result)
        print(text)
        return 1 if below or result["failed"] else 0
    if options.compare and len(options.compare) == 2:
        new = json.loads(options.compare[1].read_text())
    else:
        new = measure(options)
        print(report.table(new))
        print(f"result: {options.out}")
    if options.document:
        document = beds.ROOT / "docs" / "BENCHMARKING.md"
        document.write_text(report.into_document(document.read_text(), new))
    if options.compare:
        text, _ = report.compare(json.loads(options.compare[0].read_text()), new)
        print(text)
    return 1 if new["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
