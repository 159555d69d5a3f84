"""A row of the table: one figure with its ceiling, its targets and its peers."""
import statistics

from measure import Failed

FIGURES = {}  # name -> function(Bed) -> list of rows, in the order of the table
OF_THE_PROGRAM = []  # the names of those that time `backhaul` itself: what --against compares


def figure(name, of_the_program=True):
    def register(function):
        FIGURES[name] = function
        if of_the_program:
            OF_THE_PROGRAM.append(name)
        return function
    return register


def target(what, got, sense, want):
    """One aim: `got` is None when what it compares with is missing, and then nobody can say."""
    met = None if got is None else (got >= want if sense == ">=" else got <= want)
    return {"what": what, "got": got, "sense": sense, "want": want, "met": met}


def row(name, unit, value, moved, better="higher", cpu_s_per_gb=None, ceiling=None, targets=(), peers=(), samples=(), note=""):
    """`ceiling`: {"what", "value"} in the row's unit, or {"what", "missing"}. The ratio is value to ceiling, and more is better."""
    ratio = None
    if ceiling and ceiling.get("value") and value:
        ratio = value / ceiling["value"] if better == "higher" else ceiling["value"] / value
    return {"name": name, "unit": unit, "value": value, "better": better, "moved": moved, "cpu_s_per_gb": cpu_s_per_gb,
            "samples": list(samples), "ceiling": ceiling, "ratio": ratio, "targets": list(targets), "peers": list(peers), "note": note}


def measured(name, unit, values, series, size=None, **more):
    """A row of what one contestant did. `values` gives a Series' values, one a sample; CPU seconds are counted per GB of `size` bytes. Where
    an old program ran beside the new one, both programs' samples are in `against`."""
    def cpu(one):
        return [sample.cpu_s / (size / 1e9) for sample in one.samples]

    samples, found = values(series), {"moved": series.moved, **more}
    line = row(name, unit, statistics.median(samples), samples=samples, cpu_s_per_gb=statistics.median(cpu(series)) if size else None, **found)
    if series.old:
        line["against"] = [{"name": name, "unit": unit, "better": line["better"], "old": values(series.old), "new": samples}]
        if size:
            line["against"].append({"name": name + ": CPU", "unit": "s per GB", "better": "lower", "old": cpu(series.old), "new": cpu(series)})
    return line


def milliseconds(series):
    return [sample.wall_s * 1000 for sample in series.samples]


def rate_row(name, series, size, unit="GB/s", **more):
    """GB/s or MB/s over `size` bytes of the disk, and CPU seconds per GB of them."""
    return measured(name, unit, lambda one: [size / BYTES[unit] / sample.wall_s for sample in one.samples], series, size, **more)


BYTES = {"GB/s": 1e9, "MB/s": 1e6}


def rate_ceiling(what, series, size):
    if series.missing:
        return {"what": what, "missing": series.missing}
    return {"what": what, "value": size / 1e9 / series.wall_s, "cpu_s_per_gb": series.cpu_s / (size / 1e9)}


def rate_peer(series, size, unit="GB/s"):
    if series.missing:
        return {"name": series.name, "missing": series.missing}
    return {"name": series.name, "value": size / BYTES[unit] / series.wall_s, "unit": unit,
            "cpu_s_per_gb": series.cpu_s / (size / 1e9), "note": series.note}


def times_faster(ours, *others):
    """Ours against the fastest of the others that are there; None without any."""
    there = [other.wall_s for other in others if not other.missing]
    return min(there) / ours.wall_s if there else None


def cpu_share(ours, *others):
    """Our CPU seconds as a share of those of the fastest of the others."""
    there = [other for other in others if not other.missing]
    fastest = min(there, key=lambda other: other.wall_s, default=None)
    return ours.cpu_s / fastest.cpu_s if fastest and fastest.cpu_s else None


def must(series):
    """Our own runs have no excuse."""
    if series.missing:
        raise Failed(f"{series.name}: {series.missing}")
    return series
