"""Figures of long and narrow networks: how much of the link is used, and what compression gains."""
import statistics

import bed as beds
from link import Link
from measure import Contestant
from rows import figure, measured, must, rate_peer, rate_row, target, times_faster


def link_share(bed, delay, fraction):
    """Bytes per second on the wire as a share of the link's rate, once the transfer is under way: two sizes are sent, and the
    difference of their times is taken, so that what is paid once (handshakes, finish) is apart. `fraction` None: a full copy;
    else a delta with so much changed."""
    small, large = bed.sizes.link_bytes
    with bed.place("memory") as place, Link(place.host.port, delay / 2, bed.sizes.link_rate) as link:
        sources, contestants = {}, []
        for size in (small, large):
            source = sources[size] = place.folder / f"{size}.raw"
            disk = size if fraction is None else int(size / fraction)
            beds.make_dense(source, disk)
            name = f"{size}.raw"
            if fraction is not None:
                beds.copy(source, place.store / name)
            changes = beds.Changes(source)

            def prepare(name=name, changes=changes, disk=disk):
                if fraction is None:
                    (place.store / name).unlink(missing_ok=True)
                    place.forget_digests(name)
                else:
                    changes.make(int(disk * fraction))

            def run(source=source, name=name):
                more = {"sync": "full"} if fraction is None else {"staging": "undo"}
                return place.send(source, name, via=link, compress="off", lanes=4, **more)

            contestants.append(Contestant(str(size), run, prepare, ours=True))
        if fraction is not None:  # the first rounds leave the digest index
            for one in contestants:
                one.run()
        found = place.alternate(contestants, min(bed.sizes.rounds, 5))  # the link sets the pace: there is little noise
        for size in (small, large):
            beds.expect_equal(sources[size], place.store / f"{size}.raw")
    less, more = must(found[str(small)]), must(found[str(large)])

    def rates(series):
        made = []
        for short, long in zip((less if series is more else less.old).samples, series.samples):
            apart = long.wall_s - short.wall_s
            # Too small a difference (a smoke run) is only noise: then what is paid once is in the rate.
            made.append((long.facts["wire_bytes"] - short.facts["wire_bytes"]) / apart if apart > 0.1 else long.facts["wire_bytes"] / long.wall_s)
        return [rate / 1e6 for rate in made]

    fixed = max(0.0, less.wall_s - statistics.median(sample.facts["wire_bytes"] for sample in less.samples) / bed.sizes.link_rate)
    kind = "full" if fraction is None else f"delta {fraction * 100:g} %"
    line = measured(f"{kind} over {delay * 1000:g} ms", "MB/s", rates, more, ceiling={"what": "the link's rate", "value": bed.sizes.link_rate / 1e6},
                    note=f"wire bytes; {fixed:.2f} s are paid once ({fixed / delay:.1f} round trips)")
    line["targets"] = [target("of the link", line["ratio"], ">=", 0.95)]
    return line


@figure("long-networks")
def long_networks(bed):
    made = []
    for delay in bed.sizes.delays:
        made += [link_share(bed, delay, None), link_share(bed, delay, 0.25)]
    return made


@figure("compression")
def compression(bed):
    """Full copies with --compress auto and off: of text over a link that binds, and of noise where nothing binds but the CPU."""
    made, size = [], bed.sizes.link_bytes[1]
    for name, content, rate in (("text, link binds", beds.text, bed.sizes.link_rate // 2),
                                ("noise, link binds", beds.noise, bed.sizes.link_rate * 2), ("noise, no limit", beds.noise, 0)):
        with bed.place("memory") as place, Link(place.host.port, 0.001, rate) as link:
            source = place.folder / "source.raw"
            beds.make_dense(source, size, content=content)
            beds.copy(source, place.store / "disk.raw")  # an existing target: new pages of a tmpfs are not what is measured

            def send(mode):
                more = {"via": link, "limit": rate} if rate else {}
                return lambda: place.send(source, "disk.raw", sync="full", staging="undo", compress=mode, **more)

            found = place.alternate([Contestant("ours", send("auto"), ours=True), Contestant("--compress off", send("off"))],
                                    bed.sizes.rounds * (1 if rate else 3))  # without a limit they are short
        auto, off = must(found["ours"]), found["--compress off"]
        aim = target("times faster than off", times_faster(auto, off), ">=", 1.8 if content is beds.text else 0.97)
        made.append(rate_row(f"compression, {name}", auto, size, "MB/s", targets=[aim], peers=[rate_peer(off, size, "MB/s")],
                             note=f"{rate / 1e6:g} MB/s link" if rate else "loopback"))
    return made
