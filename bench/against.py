"""`--against`: what an old and a new program did in turn, and which figures of the new one are lower beyond the noise.

A ratio is that of the two medians, turned so that above 1 is better. Its noise is a bootstrap: rounds are drawn with replacement, both
programs' samples of a round together, and 95 % of the ratios that come out lie in the interval.
"""
import random
import statistics

from report import number

LEAST = 0.97
FEWEST = 5  # rounds; fewer say nothing about noise
DRAWS = 2000


def ratio(old, new, better):
    gain = statistics.median(new) / statistics.median(old)
    return gain if better == "higher" else 1 / gain


def interval(old, new, better):
    """(low, high) of the ratio; None with too few rounds."""
    if min(len(old), len(new)) < FEWEST:
        return None
    source, pairs = random.Random(1), list(zip(old, new))
    drawn = sorted(ratio(*zip(*source.choices(pairs, k=len(pairs))), better) for _ in range(DRAWS))
    return drawn[DRAWS * 25 // 1000], drawn[DRAWS * 975 // 1000]


def spread(samples):
    """The distance of the quartiles as a share of the median."""
    if len(samples) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return (high - low) / middle


def judge(one):
    """One figure with both programs' samples: adds its medians, ratio, interval, and whether it is below beyond the noise."""
    noise = interval(one["old"], one["new"], one["better"])
    return {**one, "old_median": statistics.median(one["old"]), "new_median": statistics.median(one["new"]),
            "ratio": ratio(one["old"], one["new"], one["better"]), "interval": noise, "below": noise is not None and noise[1] < LEAST}


def table(result):
    """The text of the comparison, and the names of the figures that are below beyond the noise."""
    judged = [judge(one) for row in result["figures"] for one in row["against"]]
    lines = [f"old: {result['programs'][0]}", f"new: {result['programs'][-1]}",
             f"{'figure':48} {'unit':10} {'old':>8} {'spread':>7} {'new':>8} {'spread':>7} {'ratio':>6}  95 % of draws"]
    lines.append("-" * 118)
    for one in judged:
        noise = "{:.3f} to {:.3f}".format(*one["interval"]) if one["interval"] else "too few rounds"
        lines.append(f"{one['name']:48} {one['unit']:10} {number(one['old_median']):>8} {spread(one['old']):>7.1%} {number(one['new_median']):>8} "
                     f"{spread(one['new']):>7.1%} {one['ratio']:>6.3f}  {noise}" + ("  BELOW" if one["below"] else ""))
    lines.append("-" * 118)
    lines += [f"FAILED {name}: {why}" for name, why in result["failed"].items()]
    below = [one["name"] for one in judged if one["below"]]
    lines.append(f"{result['size']} run of {result['seconds']:.0f} s, {result['rounds']} rounds; other programs took {result['others_share']:.0%} of the "
                 f"machine, its host {result['stolen_share']:.0%}; spread: between the quartiles; above 1 is better")
    told = sum(one["interval"] is not None for one in judged)
    lines.append(f"below {LEAST:g} beyond the noise: " + ("; ".join(below) or "none") + f" ({told} of {len(judged)} figures judged)")
    return "\n".join(lines), below
