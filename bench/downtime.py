#!/usr/bin/python3
"""The downtime of a failback against the size of the disk, the last delta staying the same.

A real guest in QEMU (tests/guest/guest_records.py) with a sparse second disk of each size fails back; before Complete Failover the same
number of bytes is written to that disk, in pieces spread over all of it, through the guest's device. Prints the parts of the downtime as
the job measured them, medians of all runs, and writes every run's to a JSON file. Sizes take turns, so that what the machine does
meanwhile falls on all. `data` is what could depend on data: delta + verify + swap.

    bench/downtime.py [--sizes 1,8,64] [--deltas 32] [--runs 5] [--program PATH] [--out FILE.json]
"""
import argparse
import json
import os
import pathlib
import random
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "guest"), str(ROOT / "tests" / "integration"), str(ROOT / "bench")]
import guest_records  # noqa: E402
import harness  # noqa: E402
import machine  # noqa: E402
from qemu_driver import Driver  # noqa: E402
from qemu_sites import QemuSites, Watch  # noqa: E402

VM = "web"
PIECES = 32
PARTS = ("shutdown", "delta", "verify", "swap", "start", "boot")
# No delta round between the first and the last, so that the last delta is what was written.
PACE = {"poll_ms": 20, "look_ms": 200, "delta_interval_ms": 3_600_000, "delta_least_ms": 3_600_000}


def write_delta(folder, size, delta, seed):
    """The same number of bytes on a disk of each size, in pieces that never share an extent."""
    chance, piece = random.Random(seed), delta // PIECES
    guest = Driver(folder, vm=VM)
    for number in range(PIECES):
        # Behind the guest's records, which are at the start.
        place = (size * number // PIECES + 16 * harness.MIB) // harness.MIB * harness.MIB
        guest.write(place, piece, chance.randrange(1, 256), disk=1)


def one_run(folder, pki, size, delta, seed):
    fresh, inside = folder / "fresh", folder / "sites"
    inside.mkdir()
    os.truncate(fresh / "data.raw", size)
    with QemuSites(inside, pki, fresh, pace=PACE) as sites:
        sites.make_guest(VM)
        with Watch(sites.recovery.console(VM)) as away:
            away.wait_for(5)
            job = sites.api.failover(VM, recoveryVmCreationOption="CreateVmIfNotFound")
            sites.suspended(job, timeout=300)
            write_delta(inside, size, delta, seed)
            sites.api.resume(job)
            facts = sites.end(job, timeout=600)["backhaul"]
            last = away.last()
            with Watch(sites.home().console(VM)) as back:
                back.wait_for(last + 1)
    found = {part: facts["downtime"]["parts"][f"{part}Seconds"] for part in PARTS}
    found["data"] = found["delta"] + found["verify"] + found["swap"]
    found["seconds"] = facts["downtime"]["seconds"]
    found["payload_bytes"] = sum(disk["payloadBytes"] for disk in facts["round"]["disks"])
    found["blocks_changed"] = sum(disk["blocksChanged"] for disk in facts["round"]["disks"])
    return found


def measure(sizes, deltas, runs):
    results = {}
    with harness.temporary_folder() as folder:
        pki = harness.make_pki(folder / "tls")
        (folder / "fresh").mkdir()
        guest_records.build(folder / "fresh" / "os.raw", folder / "fresh" / "data.raw")
        for run in range(runs):
            for delta in deltas:
                for size in sizes:
                    with harness.temporary_folder(folder) as place:
                        (place / "fresh").symlink_to(folder / "fresh")
                        found = one_run(place, pki, size * harness.GIB, delta * harness.MIB, run)
                    results.setdefault((delta, size), []).append(found)
                    print(f"run {run + 1}: {size} GiB, {delta} MiB: data {found['data']:.3f} s of {found['seconds']:.2f} s",
                          file=sys.stderr, flush=True)
    return results


def show(results):
    print("| last delta written | disk | changed blocks | " + " | ".join((*PARTS, "data: delta + verify + swap")) + " | in all |")
    print("|" + "---|" * (len(PARTS) + 5))
    for (delta, size), found in results.items():
        def median(name):
            return statistics.median(run[name] for run in found)
        seconds = " | ".join(f"{median(name):.2f}" for name in (*PARTS, "data"))
        print(f"| {delta} MiB | {size} GiB | {median('blocks_changed'):.0f} | {seconds} | {median('seconds'):.2f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1,8,64", help="GiB")
    parser.add_argument("--deltas", default="32,256", help="MiB")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--program", help="the backhaul program (default: build/release/backhaul)")
    parser.add_argument("--out", help="a JSON file with every run")
    options = parser.parse_args()
    if options.program:
        os.environ["BACKHAUL_BIN"] = options.program
    sizes, deltas = ([int(word) for word in text.split(",")] for text in (options.sizes, options.deltas))
    results = measure(sizes, deltas, options.runs)
    show(results)
    if options.out:
        rows = [{"delta_mib": delta, "size_gib": size, "runs": found} for (delta, size), found in results.items()]
        pathlib.Path(options.out).write_text(json.dumps({"machine": machine.facts(ROOT, {}), "rows": rows}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
