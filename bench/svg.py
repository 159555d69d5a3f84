"""Small line plots as SVG. (Debian's plotting library cannot be installed beside the Boost that the program needs.)"""
import html
import math

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 280, 58, 14, 14, 44
COLOURS = ("#1f5fa8", "#c2571a", "#2f7d4f", "#7a3f8f")


class Axis:
    """Places of values between two ends, linear from 0 or logarithmic, with round ticks."""

    def __init__(self, values, start, end, logarithmic):
        self.start, self.end, self.logarithmic = start, end, logarithmic
        low, high = min(values), max(values)
        if logarithmic:
            self.low = math.floor(math.log10(low) + 1e-9)
            self.high = max(math.ceil(math.log10(high) - 1e-9), self.low + 1)
            self.ticks = [10.0 ** power for power in range(self.low, self.high + 1)]
        else:
            step = 10.0 ** math.floor(math.log10(high or 1))
            step = next(part for part in (step / 5, step / 2, step, step * 2) if (high or 1) / part <= 6)
            self.low, self.high = 0.0, math.ceil((high or 1) / step) * step
            self.ticks = [step * number for number in range(round(self.high / step) + 1)]

    def place(self, value):
        at = math.log10(value) if self.logarithmic else value
        return self.start + (at - self.low) / (self.high - self.low) * (self.end - self.start)


def label(value):
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"


def plot(x_name, y_name, lines, log_x=False, log_y=False):
    """`lines`: {name: [(x, y), ...]}. Returns the file's text."""
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points]
    x, y = Axis(xs, LEFT, WIDTH - RIGHT, log_x), Axis(ys, HEIGHT - BOTTOM, TOP, log_y)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for tick in x.ticks:
        at = x.place(tick)
        out.append(f'<path d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>'
                   f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{label(tick)}</text>')
    for tick in y.ticks:
        at = y.place(tick)
        out.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
                   f'<text x="{LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">{label(tick)}</text>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{html.escape(x_name)}</text>'
               f'<text transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">{html.escape(y_name)}</text>')
    for number, (name, points) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [(x.place(one), y.place(other)) for one, other in sorted(points)]
        out.append(f'<polyline points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in places)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in places]
        if len(lines) > 1:
            out.append(f'<text x="{LEFT + 10}" y="{HEIGHT - BOTTOM - 10 - 14 * number}" fill="{colour}">{html.escape(name)}</text>')
    return "\n".join(out) + "\n</svg>\n"
