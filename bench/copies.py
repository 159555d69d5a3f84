"""Figures of whole-disk transfers: full copies and deltas, beside the peers, in memory and on the disk."""
import contextlib
import json
import statistics

import bed as beds
import fio
import harness
import peers
from measure import Contestant, Failed, Sample, timed
from rows import cpu_share, figure, must, rate_ceiling, rate_peer, rate_row, target, times_faster


def full_copy(bed, where):
    """All data of a disk of runs and holes to a new target. In memory one line more tells what it costs to keep an old disk, which no peer
    does: the same copy over a disk of zeros, whose content is read for the undo log."""
    memory = where == "memory"
    lanes = beds.lanes_in_memory() if memory else 2
    with bed.place(where) as place, ssh_server(place) as ssh:
        source, other = place.folder / "source.raw", place.store / "disk.raw"
        size = beds.make_disk(source, bed.sizes.image)

        def no_disk():
            beds.drop_cache(source)
            place.forget_digests("disk.raw")
            other.unlink(missing_ok=True)

        def prepare():
            no_disk()
            with open(other, "wb") as file:
                file.truncate(bed.sizes.image)

        def old_disk():
            no_disk()
            beds.copy(source, other)
            beds.overwrite_with_zeros(other)

        def ours(verify, staging="auto"):
            return lambda: place.send(source, "disk.raw", verified=verify != "none", verify=verify, staging=staging, sync="full", compress="off", lanes=lanes)

        over_tls = [Contestant("qemu-img to qemu-nbd, TLS", lambda: peers.qemu_img(bed, source, other, not memory), prepare),
                    Contestant("nbdcopy to nbdkit, TLS", lambda: peers.nbdcopy(bed, source, other, not memory), prepare)]
        rest = [Contestant("cp", lambda: peers.cp(source, other), prepare, "no network, not encrypted"),
                Contestant("rsync -W over ssh", lambda: peers.rsync_whole(need_ssh(ssh), source, other), prepare)]
        mix = Contestant("mix", lambda: fio.run(place.folder, [fio.job("in", source, "read", size),
                                                               fio.job("out", place.folder / "out", "write", size)], size),
                         lambda: (place.folder / "out").unlink(missing_ok=True))
        runs = [Contestant("ours", ours("none"), no_disk, ours=True), Contestant("ours, verified", ours("written"), no_disk, ours=True)]
        if memory:
            runs.append(Contestant("ours, an old disk kept", ours("none", "undo"), old_disk, ours=True))
        found = place.alternate(runs + over_tls + rest + ([] if memory else [mix]))
        runs[0].prepare()
        runs[0].run()
        beds.expect_equal(source, other)
    fast = [found[one.name] for one in over_tls]
    made = []
    for one in runs:
        mine = must(found[one.name])
        aims, ceiling = [], None
        if one.name == "ours" and memory:  # on the disk the device binds everybody
            aims = [target("times the fastest peer with TLS", times_faster(mine, *fast), ">=", 2),
                    target("of its CPU time", cpu_share(mine, *fast), "<=", 0.5)]
        if not memory:
            ceiling = rate_ceiling("fio, the same reads and writes", found["mix"], size)
        line = rate_row(f"full copy, {where}" + one.name.removeprefix("ours"), mine, size, ceiling=ceiling, targets=aims,
                        peers=[rate_peer(found[other.name], size) for other in over_tls + rest],
                        note=f"GB of data; lanes {lanes}; " + ("in memory, " if memory else "cold source, ") + ("over zeros" if "old" in one.name else "new target") + ", durable at the end")
        if ceiling and one.name == "ours":
            line["targets"].append(target("of the ceiling", line["ratio"], ">=", 0.9))
        made.append(line)
    return made


def ssh_server(place):
    wanted = len(place.bed.programs) == 1 and beds.has("sshd", "ssh", "ssh-keygen")
    return peers.Ssh(place.folder) if wanted else contextlib.nullcontext()


def need_ssh(ssh):
    if ssh is None:
        raise beds.Missing("sshd is not installed")
    return ssh


@figure("full-memory")
def full_memory(bed):
    return full_copy(bed, "memory")


@figure("full-disk")
def full_disk(bed):
    return full_copy(bed, "disk")


RSYNC_BLOCKS = (16384, 32768, 65536, 131072)


def best_block(bed, ssh, source, target, changes, fraction):
    """rsync's fastest block size here (its limit is 128 KiB), by one run of each."""
    if bed.sizes.rounds == 1:
        return 65536
    walls = {}
    for block in RSYNC_BLOCKS:
        changes.make(int(bed.sizes.image * fraction))
        walls[block] = peers.rsync_delta(ssh, source, target, block).wall_s
    return min(walls, key=walls.get)


def both_digests(place, source, target, size):
    """The ceiling of a delta: both ends read and digested at the same time, nothing compared or sent."""
    words = ["sh", "-c", '"$0" digest "$1" --json & "$0" digest "$2" --json && wait', harness.program(), source, target]
    wall, cpu, out, *_ = timed(words)
    if out.count("root_digest") != 2:
        raise Failed(out)
    return Sample(wall, cpu, size)


def delta(bed, fraction, indexed):
    """Scattered 64 KiB changes over a disk of data in memory; both sides hold the disk. Rates are over the disk's data."""
    with bed.place("memory") as place, ssh_server(place) as ssh:
        source, other = place.folder / "source.raw", place.store / "disk.raw"
        size = beds.make_disk(source, bed.sizes.image)
        beds.copy(source, other)
        changes, casync = beds.Changes(source), peers.Casync(place.folder)
        lanes = 2 if indexed else beds.lanes_in_memory()  # a target that knows its digests leaves the cores to the source

        def changed():
            changes.make(int(size * fraction))
            if not indexed:
                place.forget_digests("disk.raw")

        def ours():
            return place.send(source, "disk.raw", staging="undo", compress="off", lanes=lanes)

        def keyed():
            return place.send(source, "disk.raw", staging="undo", compress="off", compare_by="gmac", verified=False, lanes=lanes)

        contestants = [Contestant("ours", ours, changed, ours=True)]
        if indexed:
            ours()  # leaves the index that the next round relies on
        else:
            block = best_block(bed, ssh, source, other, changes, fraction) if ssh and beds.has("rsync") else 65536
            contestants += [
                Contestant("by tags", keyed, changed, ours=True),
                Contestant(f"rsync --inplace --no-whole-file -B {block} over ssh",
                           lambda: peers.rsync_delta(need_ssh(ssh), source, other, block), changed),
                Contestant("ceiling", lambda: both_digests(place, source, other, size))]
            if fraction <= 0.01:
                contestants.append(Contestant("casync make and extract --seed", lambda: casync.delta(source, other),
                                              lambda: (casync.begin(source), changed()), "no network, not encrypted", most=2))
        found = place.alternate(contestants)
        changed()
        ours()
        beds.expect_equal(source, other)
    mine, percent = must(found["ours"]), f"{fraction * 100:g} %"
    if indexed:
        return [rate_row(f"delta {percent}, kept digest index", mine, size, note=f"in memory, lanes {lanes}; source reads, target does not")]
    rivals = [found[one.name] for one in contestants[2:] if one.name != "ceiling"]
    line = rate_row(f"delta {percent}", mine, size, ceiling=rate_ceiling("both ends read and digested at once", found["ceiling"], size),
                    peers=[rate_peer(one, size) for one in rivals], note=f"in memory, lanes {lanes}; SHA-256 on both ends, target not indexed",
                    targets=[target("times rsync --inplace", times_faster(mine, rivals[0]), ">=", 4)])
    line["targets"].append(target("of the ceiling", line["ratio"], ">=", 0.85))
    tags = must(found["by tags"])
    return [line, rate_row(f"delta {percent}, compared by tags", tags, size, peers=[rate_peer(one, size) for one in (found["ours"], *rivals)],
                           note=f"in memory, lanes {lanes}; --compare-by gmac, no root digests", targets=[target("times rsync --inplace", times_faster(tags, rivals[0]), ">=", 4)])]


@figure("delta")
def deltas(bed):
    return [line for fraction in bed.sizes.deltas for line in delta(bed, fraction, False)]


@figure("delta-indexed")
def deltas_indexed(bed):
    return [line for fraction in bed.sizes.deltas for line in delta(bed, fraction, True)]


@figure("eight-disks")
def eight_disks(bed):
    """Four VMs of two disks at once beside one disk of the same bytes; fair when all disks take about as long."""
    number = bed.sizes.disks
    with bed.place("memory") as place:
        each, one, ends = bed.sizes.image // number // beds.MIB * beds.MIB, place.folder / "one.raw", []
        sources = [place.folder / f"source{at}.raw" for at in range(number)]
        size = sum(beds.make_disk(source, each, seed=at) for at, source in enumerate(sources))
        with open(one, "wb") as whole:
            whole.truncate(each * number)
        for at, source in enumerate(sources):
            harness.run("dd", f"if={source}", f"of={one}", "bs=1M", f"seek={at * each // beds.MIB}", "conv=notrunc,sparse")
        options = {"sync": "full", "compress": "off", "lanes": beds.lanes_in_memory()}

        def together():
            sends = [" ".join(harness.send_words(source, place.host.url(f"disk{at}.raw"), bed.pki, options)) + " --json &"
                     for at, source in enumerate(sources)]
            wall, cpu, out, *_ = timed(["sh", "-c", "\n".join(sends) + "\nwait"], daemons=[place.host.process.pid])
            results = [json.loads(text) for text in out.splitlines() if text.startswith("{")]
            equal = [result for result in results if result.get("root_digest_source") == result.get("root_digest_target", "")]
            if len(equal) != number:
                raise Failed(out)
            ends.append(min(result["seconds"] for result in results) / max(result["seconds"] for result in results))
            return Sample(wall, cpu, sum(result["payload_bytes"] for result in results))

        def clear():
            for path in [*place.store.glob("*.raw"), *place.store.glob(".*.digests"), *place.store.glob(".*.last")]:
                path.unlink()

        found = place.alternate([Contestant("together", together, clear, ours=True),
                                 Contestant("alone", lambda: place.send(one, "one.raw", **options), clear, ours=True)])
        clear()
        together()
        for at, source in enumerate(sources):
            beds.expect_equal(source, place.store / f"disk{at}.raw")
    mine = must(found["together"])
    line = rate_row(f"{number} disks at once", mine, size, ceiling=rate_ceiling("one disk of the same data", must(found["alone"]), size),
                    note=f"in memory, lanes {options['lanes']} each, new targets; the quickest disk took {statistics.median(ends):.0%} of the slowest one's time")
    line["targets"] = [target("of one disk's rate", line["ratio"], ">=", 0.95)]
    return [line]
