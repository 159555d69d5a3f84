"""Figures of phase 2: the final delta, whose length is the downtime, and its fixed overhead."""
import statistics

import bed as beds
import fio
from measure import Contestant, Sample, timed
from rows import figure, measured, milliseconds, must, rate_ceiling, rate_row, target

UNIT = 64 * beds.KIB


def send_changed(place, source, disk, changes, name="changed.json"):
    """Only the listed extents, against a target that keeps no digests: the worst case of a first phase 2."""
    listed = changes.list(place.folder / name)
    place.forget_digests(disk)
    return lambda: place.send(source, disk, changed=listed, staging="undo", compress="off", verified=False)


def final_row(name, series, size, fixed_ms=0.0, **more):
    return measured(name, "ms per MiB", lambda one: [(wall - fixed_ms) / (size / beds.MIB) for wall in milliseconds(one)], series, size,
                    better="lower", **more)


def final_mix(place, source, other, size, disk_size):
    """What undo staging with a read-back cannot avoid: changed units are read at the source, old content is read at the target and
    goes to a log, new content is written and read back."""
    scattered = {"block": UNIT, "region": disk_size}
    jobs = [fio.job("source", source, "randread", size, **scattered), fio.job("old", other, "randread", size, **scattered),
            fio.job("log", place.folder / "log", "write", size),
            fio.job("new", place.folder / "scratch.raw", "randwrite", size, **scattered),
            fio.job("back", other, "randread", size, **scattered)]
    return fio.run(place.folder, jobs, size)


@figure("final-delta")
def final_delta(bed):
    """Scattered 64 KiB changes on a disk full of data, for growing amounts of change; then the same change on growing disks. What a changed
    MiB costs is what is left when an empty delta is taken off, which runs in the same rounds."""
    made, alone = [], len(bed.programs) == 1
    with bed.place("disk") as place:
        source, other, scratch = place.folder / "source.raw", place.store / "disk.raw", place.folder / "scratch.raw"
        disk_size = bed.sizes.final_disk
        beds.make_dense(source, disk_size)
        beds.copy(source, other)
        beds.copy(source, scratch)
        changes = beds.Changes(source, UNIT)
        beds.drop_cache(source, other, scratch)
        rates = {}
        for size in bed.sizes.final:
            state = {}

            def prepare():
                changes.make(size)
                state["send"] = send_changed(place, source, "disk.raw", changes)
                beds.drop_cache(source, other)

            def prepare_empty():
                changes.extents = []
                state["send"] = send_changed(place, source, "disk.raw", changes)

            contestants = [Contestant("ours", lambda: state["send"](), prepare, ours=True)]
            largest = alone and size == max(candidate for candidate in bed.sizes.final if candidate <= 256 * beds.MIB)
            if alone:
                contestants.append(Contestant("empty", lambda: state["send"](), prepare_empty))
            if largest:
                contestants.append(Contestant("mix", lambda: final_mix(place, source, other, size, disk_size),
                                              lambda: (place.folder / "log").unlink(missing_ok=True)))
            found = place.alternate(contestants)
            mine = must(found["ours"])
            label = f"final delta, {size // beds.MIB} MiB changed"
            if largest:
                ceiling = rate_ceiling("fio, the same reads and writes with an undo log", found["mix"], size)
                line = rate_row(label, mine, size, ceiling=ceiling, note="disk, cold; per byte changed")
                line["targets"].append(target("of the ceiling", line["ratio"], ">=", 0.8))
                made.append(line)
            # Beside an old program nothing is taken off: a difference is noisier than its parts.
            fixed_ms = must(found["empty"]).wall_s * 1000 if alone else 0.0
            rates[size] = final_row(label + ", cost", mine, size, fixed_ms, note="disk, cold, no kept index; beyond an empty one")
            made.append(rates[size])
        beds.expect_equal(source, other)
        biggest = rates[max(rates)]
        flat = [rates[size] for size in rates if size >= 16 * beds.MIB] or list(rates.values())
        worst = max(line["value"] for line in flat) / min(line["value"] for line in flat)
        biggest["targets"].append(target("dearest to cheapest MiB, from 16 MiB on", worst, "<=", 1.5))
    return made + final_by_disk_size(bed)


def final_by_disk_size(bed):
    made, size = [], bed.sizes.growth_data // 2
    for disk_size in bed.sizes.final_disks:
        with bed.place("memory") as place:
            source, other = place.folder / "source.raw", place.store / "disk.raw"
            beds.make_dense(source, bed.sizes.growth_data)
            with open(source, "r+b") as file:
                file.truncate(disk_size)
            beds.copy(source, other)
            changes, state = beds.Changes(source, UNIT), {}

            def prepare():
                changes.make(size)
                state["send"] = send_changed(place, source, "disk.raw", changes)

            mine = must(place.alternate([Contestant("ours", lambda: state["send"](), prepare, ours=True)])["ours"])
        name = f"final delta on {beds.human(disk_size)}, {size // beds.MIB} MiB changed"
        made.append(final_row(name, mine, size, note="in memory, sparse"))
    made[-1]["targets"].append(target("times the cost on the smallest disk", made[-1]["value"] / made[0]["value"], "<=", 1.2))
    return made


@figure("empty-final-delta")
def empty_final_delta(bed):
    """A phase 2 in which nothing changed: connections, staging, finish, swap; beside the start of the program alone."""
    with bed.place("disk") as place:
        source, other = place.folder / "source.raw", place.store / "disk.raw"
        beds.make_dense(source, bed.sizes.growth_data)
        beds.copy(source, other)
        changes = beds.Changes(source, UNIT)

        def start():
            wall, cpu, out, *_ = timed([beds.harness.program(), "--version"])
            return Sample(wall, cpu, len(out))

        def ours():
            listed = changes.list(place.folder / "changed.json")
            sample = place.send(source, "disk.raw", changed=listed, staging="undo", verified=False)
            sample.moved = sample.facts["wire_bytes"]
            return sample

        found = place.alternate([Contestant("ours", ours, ours=True), Contestant("start", start, ours=True)], bed.sizes.rounds * 2)
    mine, begun = must(found["ours"]), must(found["start"])
    own = (mine.wall_s - begun.wall_s) * 1000
    return [measured("empty final delta", "ms", milliseconds, mine, better="lower", note="disk",
                     targets=[target("ms without the program's start", own, "<=", 100)])]
