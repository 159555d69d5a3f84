"""Figures of cost against the size of the disk, the data staying the same: time, memory, and the digest index."""
import bed as beds
import harness
from measure import Contestant
from rows import figure, measured, milliseconds, must, row, target


@figure("growth")
def growth(bed):
    made, data = [], bed.sizes.growth_data
    for size in bed.sizes.growth:
        with bed.place("memory") as place:
            source = place.folder / "source.raw"
            pieces = data // beds.MIB
            with open(source, "wb") as image:
                image.truncate(size)
                for piece in range(pieces):
                    image.seek(size // pieces * piece // beds.MIB * beds.MIB)
                    image.write(beds.noise(beds.MIB, f"growth/{piece}"))
            index = place.store / ".disk.raw.digests"

            def prepare():
                place.forget_digests("disk.raw")

            def run():
                return place.send(source, "disk.raw", staging="undo" if (place.store / "disk.raw").exists() else "auto")

            run()  # the first makes the target
            series = must(place.alternate([Contestant("ours", run, prepare, ours=True)])["ours"])
            peak, sender_peak = (max(sample.facts[what] for sample in series.samples) for what in ("host_peak_rss_bytes", "peak_rss_bytes"))
            # Records of 4 MiB extents: each piece of data makes one extent known.
            known = pieces * 4 * beds.MIB
            taken = harness.allocated_bytes(index)
            made.append(measured(f"delta of {beds.human(size)}, {data // beds.MIB} MiB of data", "ms", milliseconds, series, data, moved=data, better="lower",
                            note=f"host agent's peak {peak // beds.MIB} MiB; index {taken / 1e6:.2f} MB = {taken / known:.3%} of its extents"))
            made[-1]["facts"] = {"peak_rss_bytes": peak, "index_bytes": taken, "disk_bytes": size,
                                 "sender_peak_rss_bytes": sender_peak}
    first, last = made[0], made[-1]
    def grown(what):
        return last["facts"][what] / first["facts"][what]

    last["targets"] = [target("times the time on the smallest disk", last["value"] / first["value"], "<=", 3),
                       target("times the host agent's memory", grown("peak_rss_bytes"), "<=", 1.5),
                       target("times the sender's memory", grown("sender_peak_rss_bytes"), "<=", 1.5)]
    return made


@figure("index-size", of_the_program=False)
def index_size(bed):
    """The digest index of a disk full of data."""
    with bed.place("memory") as place:
        source, size = place.folder / "source.raw", bed.sizes.image // 2
        beds.make_dense(source, size)
        sample = place.send(source, "disk.raw", sync="full")
        taken = harness.allocated_bytes(place.store / ".disk.raw.digests") / size
    return [row("digest index", "% of data", taken * 100, sample.moved, better="lower", samples=[taken * 100],
                targets=[target("% of data", taken * 100, "<=", 0.06)])]
