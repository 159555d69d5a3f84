"""A row of the table: one figure with its ceiling, its targets and its peers."""
import statistics

FIGURES = {}  # name -> function(Bed) -> list of rows, in the order of the table


def figure(name):
    def register(function):
        FIGURES[name] = function
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


def rate_row(name, series, size, **more):
    """GB/s over `size` bytes of the disk, and CPU seconds per GB of them."""
    rates = [size / 1e9 / sample.wall_s for sample in series.samples]
    return row(name, "GB/s", statistics.median(rates), series.moved, cpu_s_per_gb=series.cpu_s / (size / 1e9), samples=rates,
               **more)


def rate_ceiling(what, series, size):
    if series.missing:
        return {"what": what, "missing": series.missing}
    return {"what": what, "value": size / 1e9 / series.wall_s, "cpu_s_per_gb": series.cpu_s / (size / 1e9)}


def rate_peer(series, size):
    if series.missing:
        return {"name": series.name, "missing": series.missing}
    return {"name": series.name, "value": size / 1e9 / series.wall_s, "unit": "GB/s",
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
    from measure import Failed
    if series.missing:
        raise Failed(f"{series.name}: {series.missing}")
    return series
