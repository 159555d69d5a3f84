"""Sweeps, drawn as SVG: throughput against lanes, change rate, round-trip time, and rsync's block size; cost against the size of the disk."""
import statistics

import bed as beds
import copies
import growth
import peers
import svg
from link import Link
from measure import Contestant
from rows import must


def sweep_lanes(bed):
    """Full copies in memory onto an existing target, by number of lanes."""
    with bed.place("memory") as place:
        source = place.folder / "source.raw"
        size = beds.make_disk(source, bed.sizes.image)
        beds.copy(source, place.store / "disk.raw")

        def send(lanes):
            return lambda: place.send(source, "disk.raw", verified=False, sync="full", staging="undo", compress="off", verify="none", lanes=lanes)

        found = place.alternate([Contestant(str(lanes), send(lanes)) for lanes in (1, 2, 4, 8)])
    return [(int(name), size / 1e9 / must(series).wall_s) for name, series in found.items()]


def sweep_changes(bed):
    """Deltas in memory with a target that keeps no digests, and with one that does, by the share of the data that changed."""
    fractions, lines = (0.001, 0.01, 0.05, 0.1, 0.3, 1.0), {"digests on both ends": [], "kept digest index": []}
    with bed.place("memory") as place:
        source = place.folder / "source.raw"
        size = beds.make_disk(source, bed.sizes.image)
        beds.copy(source, place.store / "disk.raw")
        changes = beds.Changes(source)
        for fraction in fractions:
            for name, points in lines.items():
                def prepare(name=name, fraction=fraction):
                    changes.make(int(size * fraction))
                    if name != "kept digest index":
                        place.forget_digests("disk.raw")

                one = Contestant(name, lambda: place.send(source, "disk.raw", staging="undo", compress="off"), prepare)
                points.append((fraction * 100, size / 1e9 / must(place.alternate([one])[name]).wall_s))
    return lines


def sweep_round_trips(bed):
    """The share of a link's rate that a full copy uses, by round-trip time; what is paid once is included."""
    size, points = bed.sizes.link_bytes[1], []
    with bed.place("memory") as place:
        source = place.folder / "source.raw"
        beds.make_dense(source, size)
        beds.copy(source, place.store / "disk.raw")
        for delay in (0.001, 0.01, 0.05, 0.1, 0.2):
            with Link(place.host.port, delay / 2, bed.sizes.link_rate) as link:
                def run(link=link):
                    return place.send(source, "disk.raw", via=link, sync="full", staging="undo", compress="off", lanes=4)

                walls = [run().wall_s for _ in range(min(3, bed.sizes.rounds))]
            points.append((delay * 1000, size / bed.sizes.link_rate / statistics.median(walls) * 100))
    return points


def sweep_rsync_blocks(bed):
    """rsync's delta of 1 % by its block size: the peer's best is what the table compares with."""
    with bed.place("memory") as place, copies.ssh_server(place) as ssh:
        source, target = place.folder / "source.raw", place.store / "disk.raw"
        size = beds.make_disk(source, bed.sizes.image)
        beds.copy(source, target)
        changes = beds.Changes(source)
        found = place.alternate([Contestant(str(block), lambda block=block: peers.rsync_delta(copies.need_ssh(ssh), source, target, block),
                                      lambda: changes.make(size // 100)) for block in copies.RSYNC_BLOCKS], min(3, bed.sizes.rounds))
    return [(int(name) // 1024, size / 1e9 / series.wall_s) for name, series in found.items() if not series.missing]


def draw(folder, sizes):
    folder.mkdir(parents=True, exist_ok=True)

    def plot(name, x, y, lines, **scales):
        (folder / f"{name}.svg").write_text(svg.plot(x, y, lines, **scales))
        print(folder / f"{name}.svg", {line: [(one, round(other, 3)) for one, other in points] for line, points in lines.items()}, flush=True)

    with beds.Bed(sizes) as bed:
        plot("lanes", "lanes", "GB/s of data", {"full copy": sweep_lanes(bed)})
        plot("change_rate", "per cent changed", "GB/s of data", sweep_changes(bed), log_x=True)
        plot("round_trip_time", "round-trip time, ms", "per cent of the link", {"full copy": sweep_round_trips(bed)})
        blocks = sweep_rsync_blocks(bed)
        if blocks:
            plot("rsync_block", "rsync's block, KiB", "GB/s of data", {"rsync, 1 % changed": blocks})
        rows = [(row["facts"]["disk_bytes"] / beds.GIB, row) for row in growth.growth(bed)]
        plot("growth", "disk, GiB", "ms", {"delta, same data": [(size, row["value"]) for size, row in rows]}, log_x=True, log_y=True)
        memory = {"host agent": "peak_rss_bytes", "sender": "sender_peak_rss_bytes"}
        plot("memory", "disk, GiB", "peak memory, MiB",
             {name: [(size, row["facts"][what] / beds.MIB) for size, row in rows] for name, what in memory.items()}, log_x=True)
    return 0
