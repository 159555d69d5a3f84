"""The table, the result file's shape, and the comparison of two results."""
import textwrap


def number(value):
    if value is None:
        return "-"
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def verdict(aim):
    return {True: "met", False: "NOT MET", None: "unknown"}[aim["met"]]


def table(result):
    """The text of the table: a line a figure, below it its ceiling, targets, peers and conditions."""
    lines = [f"{'figure':44} {'value':>8} {'unit':13} {'CPU s/GB':>8} {'ceiling':>8} {'ratio':>6}  target"]
    lines.append("-" * 118)
    for one in result["figures"]:
        aims = "; ".join(f"{aim['what']} {number(aim['got'])} ({aim['sense']} {aim['want']:g}): {verdict(aim)}"
                         for aim in one["targets"])
        ceiling = one["ceiling"] or {}
        lines.append(f"{one['name']:44} {number(one['value']):>8} {one['unit']:13} {number(one['cpu_s_per_gb']):>8} "
                     f"{number(ceiling.get('value')):>8} {number(one['ratio']):>6}  {aims}".rstrip())
        details = [one["note"]] if one["note"] else []
        if ceiling:
            details.append("ceiling: " + ceiling["what"] + (f": MISSING, {ceiling['missing']}" if "missing" in ceiling else ""))
        lines += ["    " + text for detail in details for text in textwrap.wrap(detail, 112)]
        for peer in one["peers"]:
            if "missing" in peer:
                lines.append(f"    {'peer ' + peer['name']:40} MISSING: {peer['missing']}")
            else:
                note = f"  ({peer['note']})" if peer.get("note") else ""
                lines.append(f"    {'peer ' + peer['name']:40} {number(peer['value']):>8} {peer['unit']:13} "
                             f"{number(peer['cpu_s_per_gb']):>8}{note}")
    failed = result["failed"]
    aims = [aim for one in result["figures"] for aim in one["targets"]]
    lines.append("-" * 118)
    lines.append(f"{sum(aim['met'] is True for aim in aims)} of {len(aims)} targets met, "
                 f"{sum(aim['met'] is None for aim in aims)} unknown; {len(failed)} figures failed")
    lines += [f"FAILED {name}: {why}" for name, why in failed.items()]
    machine = result["machine"]
    lines.append(f"{machine['cpu']}, {machine['cores']} cores, kernel {machine['kernel']}, commit {machine['commit']}, "
                 f"{result['size']} run of {result['seconds']:.0f} s, {result['rounds']} rounds; other programs took "
                 f"{result['others_share']:.0%} of the machine, its host {result['stolen_share']:.0%}")
    return "\n".join(lines)


BEGIN, END = "<!-- the table begins -->\n", "<!-- the table ends -->\n"


def into_document(text, result):
    """The document's text with its table replaced by the result's; it says under which conditions it was measured."""
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError("the document has no place for the table")
    return f"{before}{BEGIN}\n```text\n{table(result)}\n```\n\n{END}{after}"


FELL = 0.95


def compare(old, new):
    """Ratios new to old for each figure that both have (above 1 is better) and a mark on what fell; (text, number that fell)."""
    before = {one["name"]: one for one in old["figures"]}
    after = {one["name"] for one in new["figures"]}
    lines = [f"{'figure':44} {'old':>9} {'new':>9} {'value':>7} {'of ceiling':>10} {'CPU':>6}"]
    fell = 0
    for one in new["figures"]:
        other = before.get(one["name"])
        if not other or not other["value"] or not one["value"]:
            lines.append(f"{one['name']:44} {'-':>9} {number(one['value']):>9}  not in the old result")
            continue
        gain = one["value"] / other["value"] if one["better"] == "higher" else other["value"] / one["value"]
        ceiling = one["ratio"] / other["ratio"] if one["ratio"] and other["ratio"] else None
        cpu = other["cpu_s_per_gb"] / one["cpu_s_per_gb"] if one["cpu_s_per_gb"] and other["cpu_s_per_gb"] else None
        # The share of the ceiling says more than the value: both were measured in the same minutes.
        worse = (ceiling if ceiling is not None else gain) < FELL
        fell += worse
        lines.append(f"{one['name']:44} {number(other['value']):>9} {number(one['value']):>9} {gain:7.2f} {number(ceiling):>10} "
                     f"{number(cpu):>6}" + ("  FELL" if worse else ""))
    for name in before:
        if name not in after:
            lines.append(f"{name:44} was not measured now")
    if old["size"] != new["size"]:
        lines.append(f"These are different sizes of run ({old['size']}, {new['size']}): only shares of a ceiling compare.")
    if old["machine"]["cpu"] != new["machine"]["cpu"] or old["machine"]["cores"] != new["machine"]["cores"]:
        lines.append("These are different machines: only shares of a ceiling compare.")
    lines.append(f"above 1 is better; {fell} fell below {FELL:g} of the old result (of its share of the ceiling where there is one)")
    return "\n".join(lines), fell
