"""Sweeps, drawn as SVG: throughput against lanes, change rate, round-trip time, and rsync's block size; cost against the size of the disk."""
import statistics
import sys

import bed as beds
import copies
import growth
import peers
from link import Link
from measure import Contestant, alternate
from rows import must


def sweep_lanes(bed):
    """Full copies in memory onto an existing target, by number of lanes."""
    with bed.place("memory") as place:
        source = place.folder / "source.raw"
        size = beds.make_disk(source, bed.sizes.image)
        beds.copy(source, place.store / "disk.raw")

        def send(lanes):
            return lambda: place.send(source, "disk.raw", sync="full", staging="undo", compress="off", verify="none", verified=False, lanes=lanes)

        found = alternate([Contestant(str(lanes), send(lanes)) for lanes in (1, 2, 4, 8)], bed.sizes.rounds)
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
                points.append((fraction * 100, size / 1e9 / must(alternate([one], bed.sizes.rounds)[name]).wall_s))
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
        found = alternate([Contestant(str(block), lambda block=block: peers.rsync_delta(copies.need_ssh(ssh), source, target, block),
                                      lambda: changes.make(size // 100)) for block in copies.RSYNC_BLOCKS], min(3, bed.sizes.rounds))
    return [(int(name) // 1024, size / 1e9 / series.wall_s) for name, series in found.items() if not series.missing]


def draw(folder, sizes):
    try:
        import matplotlib
    except ImportError:
        print("python3-matplotlib is not installed: ./dev setup bench", file=sys.stderr)
        return 1
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "backhaul", "font.size": 9})
    from matplotlib import pyplot
    folder.mkdir(parents=True, exist_ok=True)

    def plot(name, x, y, lines, logarithmic=False, loglog=False):
        figure, axes = pyplot.subplots(figsize=(4.6, 2.8))
        for label, points in lines.items():
            axes.plot(*zip(*points), marker="o", label=label)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        if logarithmic or loglog:
            axes.set_xscale("log")
        if loglog:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        if len(lines) > 1:
            axes.legend()
        axes.grid(alpha=0.3)
        figure.tight_layout()
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        print(folder / f"{name}.svg", lines)

    with beds.Bed(sizes) as bed:
        plot("lanes", "lanes", "GB/s of data", {"full copy": sweep_lanes(bed)})
        plot("change_rate", "per cent changed", "GB/s of data", sweep_changes(bed), logarithmic=True)
        plot("round_trip_time", "round-trip time, ms", "per cent of the link", {"full copy": sweep_round_trips(bed)})
        blocks = sweep_rsync_blocks(bed)
        if blocks:
            plot("rsync_block", "rsync's block, KiB", "GB/s of data", {"rsync, 1 % changed": blocks})
        rows = growth.growth(bed)
        plot("growth", "disk, GiB", "ms", {"delta, same data": [(row["facts"]["disk_bytes"] / beds.GIB, row["value"]) for row in rows]}, loglog=True)
        memory = {"host agent": "peak_rss_bytes", "sender": "sender_peak_rss_bytes"}
        plot("memory", "disk, GiB", "peak memory, MiB",
             {name: [(row["facts"]["disk_bytes"] / beds.GIB, row["facts"][what] / beds.MIB) for row in rows] for name, what in memory.items()},
             logarithmic=True)
    return 0
