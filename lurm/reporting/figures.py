"""Figures as SVG text inside a page: small, selectable, the same bytes for the same numbers.

Colours are classes that templates/base.html paints, so that a thing has one colour everywhere. Every
mark carries its figure as a title, which browsers show under the pointer.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

Points = Sequence[tuple[float, float]]
# From the first class to the last, for classes that have an order.
_RAMP = ("#8cc0a4", "#3f93a6", "#3c649c", "#4b3275")
_ABSENT, _PRESENT = "#d5dce3", "#3d74ad"
_MONTHS = "JFMAMJJASOND"


@dataclass(frozen=True)
class Series:
    """One line or one layer of bars; ``look`` names its class in the style sheet."""

    name: str
    look: str
    values: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """A rectangle on paper, and where a pair of numbers lies in it."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: float = 320
    height: float = 180
    left: float = 38
    right: float = 8
    top: float = 12
    bottom: float = 32

    def px(self, x: float) -> str:
        """Horizontal place of ``x``."""
        low, high = self.x
        span = self.width - self.left - self.right
        return _number(self.left + span * (x - low) / ((high - low) or 1))

    def py(self, y: float) -> str:
        """Vertical place of ``y``, from the top."""
        low, high = self.y
        span = self.height - self.top - self.bottom
        return _number(self.height - self.bottom - span * (y - low) / ((high - low) or 1))

    def path(self, points: Points) -> str:
        """The points as a polyline's coordinates."""
        return " ".join(f"{self.px(x)},{self.py(y)}" for x, y in points)

    def levels(self, ticks: Sequence[float], label: Mapping[float, str]) -> Markup:
        """Horizontal hairlines with their numbers on the left."""
        return _join(
            Markup(
                '<line class="hair" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>'
                '<text class="left" x="{3}" y="{2}" dy="3.5">{4}</text>'
            ).format(
                _number(self.left),
                _number(self.width - self.right),
                self.py(tick),
                _number(self.left - 6),
                label[tick],
            )
            for tick in ticks
        )

    def drawing(self, label: str, parts: Iterable[Markup]) -> Markup:
        """The whole SVG."""
        return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
            _number(self.width), _number(self.height), label, _join(parts)
        )


def short(value: float) -> str:
    """A number as it stands at an axis.

    >>> short(120_000), short(2_500_000), short(0.95), short(0)
    ('120k', '2.5M', '0.95', '0')
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def ticks(low: float, high: float, at_most: int = 5) -> list[float]:
    """Round numbers between ``low`` and ``high``, evenly spaced, few enough to read.

    >>> ticks(0, 118)
    [0.0, 25.0, 50.0, 75.0, 100.0]
    """
    if high <= low:
        return [low]
    rough = (high - low) / at_most
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 10) for k in range(first, last + 1)]


def month_labels(months: Sequence[str]) -> list[str]:
    """What stands under each month: its letter, and in a second line the year where one begins.

    >>> month_labels(["2017-10", "2017-11", "2017-12", "2018-01"])
    ['O\\n2017', 'N', 'D', 'J\\n2018']
    """
    if not months:
        return []
    first = int(months[0][:4])
    every = math.ceil((int(months[-1][:4]) - first + 1) / 8)
    labels = []
    for row, month in enumerate(months):
        letter = _MONTHS[int(month[5:]) - 1] if len(months) <= 24 else ""
        january = month.endswith("-01")
        begins = january or (row == 0 and not any(m.endswith("-01") for m in months[1:3]))
        year = month[:4] if begins and (int(month[:4]) - first) % every == 0 else ""
        labels.append(f"{letter}\n{year}" if year else letter)
    return labels


def bars(
    names: Sequence[str],
    layers: Sequence[Series],
    labels: Sequence[str],
    *,
    label: str,
    looks: Sequence[str] | None = None,
    width: float = 320,
) -> Markup:
    """Bars from zero, one per name, the layers on top of each other.

    Args:
        names: what each bar is, for its title.
        layers: their heights, from the bottom.
        labels: what stands below each bar, at most two lines.
        label: what the figure shows, for those who cannot see it.
        looks: a class per bar instead of the layers' own.
        width: of the figure; the text in it keeps its size if this is about its width on the page.
    """
    totals = [sum(heights) for heights in zip(*(s.values for s in layers), strict=True)]
    levels = ticks(0, max([*totals, 1]))
    panel = Panel((0, max(len(names), 1)), (0, max([*totals, 1])), width=width)
    step = (panel.width - panel.left - panel.right) / max(len(names), 1)
    parts = [panel.levels(levels, {v: short(v) for v in levels})]
    for row, name in enumerate(names):
        base = 0.0
        for layer in layers:
            value = layer.values[row]
            top, bottom = panel.py(base + value), panel.py(base)
            base += value
            if not value:
                continue
            parts.append(
                Markup(
                    '<rect class="{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>'
                ).format(
                    looks[row] if looks else layer.look,
                    panel.px(row + 0.12),
                    top,
                    _number(step * 0.76),
                    _number(float(bottom) - float(top)),
                    f"{name}: {value:,.0f} {layer.name}",
                )
            )
    for row, text in enumerate(labels):
        for line, words in enumerate(text.split("\n")):
            if words:
                parts.append(
                    Markup('<text class="mid" x="{}" y="{}">{}</text>').format(
                        panel.px(row + 0.5), _number(panel.height - 19 + 13 * line), words
                    )
                )
    return panel.drawing(label, parts)


def doublings(values: Sequence[int], of: str, label: str) -> Markup:
    """How many of the counts lie in 0, 1, 2-3, 4-7 and so on, as bars.

    Args:
        values: counts, one per thing.
        of: what is counted, for titles.
        label: what the figure shows.
    """
    bins = [int(value).bit_length() for value in values]
    heights = [bins.count(k) for k in range(max(bins, default=0) + 1)]
    if heights and not heights[0]:
        heights = heights[1:]
    first = max(bins, default=0) + 1 - len(heights)
    lows = [2 ** (k - 1) if k else 0 for k in range(first, first + len(heights))]
    names = [f"{low:,}" if low < 2 else f"{low:,} to {2 * low - 1:,}" for low in lows]
    every = math.ceil(len(lows) / 8)
    labels = [
        "" if row % every else f"{low // 1024}k" if low >= 1024 else str(low)
        for row, low in enumerate(lows)
    ]
    layer = Series("interests", "ink", heights)
    return bars([f"{name} {of}" for name in names], [layer], labels, label=label)


def hundredths(values: Sequence[float], label: str) -> Markup:
    """How many of the values lie in each hundredth between the least and the largest, as bars."""
    bins = [min(math.floor(value * 100 + 1e-9), 99) for value in values]
    lows = list(range(min(bins, default=0), max(bins, default=0) + 1))
    every = math.ceil(len(lows) / 6)
    return bars(
        [f"{low / 100:.2f} to {(low + 1) / 100:.2f}" for low in lows],
        [Series("interests", "ink", [bins.count(low) for low in lows])],
        [f"{low / 100:.2f}" if not row % every else "" for row, low in enumerate(lows)],
        label=label,
    )


def loss_curve(
    losses: Sequence[float], unit: str, guessing: float, label: str, smooth: int = 1
) -> Markup:
    """The loss by step or epoch, with the loss of guessing as a dashed line.

    Args:
        losses: one per unit, from the first.
        unit: ``"step"`` or ``"epoch"``.
        guessing: the loss when every candidate is as likely.
        label: what the figure shows.
        smooth: units in the moving mean that is drawn over the losses.
    """
    n = len(losses)
    low, high = min([*losses, guessing]), max([*losses, guessing])
    margin = (high - low) * 0.08
    panel = Panel((min(1, n), n), (low - margin, high + margin), width=480, height=230)
    levels = ticks(*panel.y)
    thin = math.ceil(n / 1000)
    raw = [(k + 1.0, losses[k]) for k in range(0, n, thin)]
    parts = [panel.levels(levels, {v: short(v) for v in levels})]
    parts += [
        Markup('<text class="mid" x="{}" y="{}">{}</text>').format(
            panel.px(tick), _number(panel.height - 17), f"{tick:,.0f}"
        )
        for tick in ticks(1, n)
        if tick == int(tick) and tick > 0
    ]
    parts.append(
        Markup('<text class="left" x="{}" y="{}">{}</text>').format(
            _number(panel.width - panel.right), _number(panel.height - 3), unit
        )
    )
    parts.append(
        Markup(
            '<line class="guess" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>'
            '<text class="left" x="{1}" y="{2}" dy="-4">guessing {3:.2f}</text>'
        ).format(
            _number(panel.left), _number(panel.width - panel.right), panel.py(guessing), guessing
        )
    )
    mean = raw
    if smooth > 1:
        half = smooth // 2
        near = {
            k: losses[max(0, k - half) : k + half + 1] for k in range(0, n, max(thin, half // 4, 1))
        }
        mean = [(k + 1.0, sum(window) / len(window)) for k, window in near.items()]
        parts.append(Markup('<polyline class="raw" points="{}"/>').format(panel.path(raw)))
    parts.append(Markup('<polyline class="curve" points="{}"/>').format(panel.path(mean)))
    if n <= 60:
        parts += [
            Markup('<circle class="ink" cx="{}" cy="{}" r="2.4"><title>{}</title></circle>').format(
                panel.px(k + 1), panel.py(loss), f"{unit} {k + 1}: {loss:.3f}"
            )
            for k, loss in enumerate(losses)
        ]
    return panel.drawing(label, parts)


def score_steps(labels: Sequence[str], scores: Sequence[float], label: str) -> Markup:
    """A score at every step of something that grows, such as months of history; labels stand below."""
    low, high = min(scores), max(scores)
    margin = max((high - low) * 0.15, 0.005)
    panel = Panel((0, max(len(scores) - 1, 1)), (low - margin, high + margin), left=44, right=22)
    levels = ticks(*panel.y)
    parts = [panel.levels(levels, {v: f"{100 * v:.3g}" for v in levels})]
    parts += [
        Markup('<text class="mid" x="{}" y="{}">{}</text>').format(
            panel.px(k), _number(panel.height - 15), text
        )
        for k, text in enumerate(labels)
    ]
    parts.append(
        Markup('<polyline class="curve" points="{}"/>').format(panel.path(list(enumerate(scores))))
    )
    parts += [
        Markup(
            '<circle class="ink" cx="{}" cy="{}" r="3"><title>{}: {:.1f}</title></circle>'
        ).format(panel.px(k), panel.py(score), labels[k], 100 * score)
        for k, score in enumerate(scores)
    ]
    return panel.drawing(label, parts)


def level_grid(
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Sequence[Sequence[tuple[str, str]]],
    labels: Sequence[str],
    *,
    label: str,
) -> Markup:
    """A square for every row and column, in the colour of its level.

    Args:
        rows: what each row is, written on the left.
        columns: what each column is, for titles.
        cells: by row and column the level, which is a class of the style sheet, and the value in words.
        labels: what stands below each column, at most two lines.
        label: what the figure shows, for those who cannot see it.
    """
    height, step = 32 + 19 * len(rows), 19
    panel = Panel((0, max(len(columns), 1)), (0, 1), width=960, height=height, left=390, top=0)
    width = (panel.width - panel.left - panel.right) / max(len(columns), 1)
    parts = [
        Markup('<text class="left" x="{}" y="{}">{}</text>').format(
            _number(panel.left - 8), _number(step * row + 13), name
        )
        for row, name in enumerate(rows)
    ]
    parts += [
        Markup(
            '<rect class="level {}" x="{}" y="{}" width="{}" height="16"><title>{}</title></rect>'
        ).format(
            level, panel.px(column + 0.05), _number(step * row + 1), _number(0.9 * width),
            f"{columns[column]}: {rows[row]}: {value}",
        )
        for row, line in enumerate(cells)
        for column, (level, value) in enumerate(line)
    ]  # fmt: skip
    parts += [
        Markup('<text class="mid" x="{}" y="{}">{}</text>').format(
            panel.px(column + 0.5), _number(height - 19 + 13 * line), words
        )
        for column, text in enumerate(labels)
        for line, words in enumerate(text.split("\n"))
        if words
    ]
    return panel.drawing(label, parts)


def scatter(groups: Sequence[Points], label: str) -> Markup:
    """Points on a map without axes, each group in its own colour."""
    places = [point for points in groups for point in points]
    lows, highs = ([bound(p[k] for p in places) for k in (0, 1)] for bound in (min, max))
    panel = Panel((lows[0], highs[0]), (lows[1], highs[1]), height=300, left=8, bottom=8)
    return panel.drawing(
        label,
        [
            Markup('<g fill="hsl({} 60% 45%)"><title>{}</title>{}</g>').format(
                round(360 * k / len(groups)),
                k + 1,
                _join(
                    Markup('<circle cx="{}" cy="{}" r="1.6"/>').format(panel.px(x), panel.py(y))
                    for x, y in points
                ),
            )
            for k, points in enumerate(groups)
        ],
    )


def class_colours(classes: Sequence[str]) -> dict[str, str]:
    """A colour for each class: grey and blue for no and yes, a ramp for more.

    >>> class_colours(["no", "yes"])["yes"]
    '#3d74ad'
    """
    if len(classes) <= 2:
        return dict(zip(classes, (_ABSENT, _PRESENT), strict=False))
    pieces = list(pairwise(_RAMP))
    colours = {}
    for row, name in enumerate(classes):
        place = row * len(pieces) / (len(classes) - 1)
        piece = min(int(place), len(pieces) - 1)
        colours[name] = _between(*pieces[piece], place - piece)
    return colours


def roc(curves: Mapping[str, Points], colours: Mapping[str, str], label: str) -> Markup:
    """True against false positive rate, a curve per class, over the diagonal of chance."""
    panel = Panel((0, 1), (0, 1), width=200, height=200, left=30, right=6, top=6, bottom=30)
    levels = [0.0, 0.5, 1.0]
    parts = [panel.levels(levels, {0.0: "0", 0.5: "0.5", 1.0: "1"})]
    parts += [
        Markup('<text class="{}" x="{}" y="{}">{}</text>').format(
            "left" if tick == 1 else "mid", panel.px(tick), _number(panel.height - 15), short(tick)
        )
        for tick in levels
    ]
    parts.append(
        Markup('<polyline class="guess" points="{}"/>').format(panel.path([(0, 0), (1, 1)]))
    )
    parts += [
        Markup(
            '<polyline class="curve" style="stroke:{}" points="{}"><title>{}</title></polyline>'
        ).format(colours[name], panel.path(points), name)
        for name, points in curves.items()
    ]
    return panel.drawing(label, parts)


def score_axis(scores: Iterable[float]) -> tuple[float, float]:
    """The range of an axis of AUC that holds chance and all scores, on twentieths."""
    values = [0.5, 0.55, *scores]
    return math.floor(min(values) * 20 + 1e-9) / 20, math.ceil(max(values) * 20 - 1e-9) / 20


def _score_panel(axis: tuple[float, float]) -> Panel:
    return Panel(axis, (0, 1), width=250, height=26, left=12, right=12, top=0, bottom=0)


def score_scale(axis: tuple[float, float]) -> Markup:
    """The numbers over a column of :func:`score_dots`, in percent."""
    panel = _score_panel(axis)
    return panel.drawing(
        "AUC in percent",
        (
            Markup('<text class="mid" x="{}" y="20">{:.0f}</text>').format(
                panel.px(tick), 100 * tick
            )
            for tick in ticks(*axis, at_most=6)
        ),
    )


def score_dots(
    mean: float, error: float, folds: Sequence[float], axis: tuple[float, float]
) -> Markup:
    """One row: the score of every fold, their mean and its standard error, and where chance is."""
    panel = _score_panel(axis)
    parts = [
        Markup('<line class="{}" x1="{x}" x2="{x}" y1="-14" y2="40"/>').format(
            "chance" if tick == 0.5 else "hair", x=panel.px(tick)
        )
        for tick in ticks(*axis, at_most=6)
    ]
    parts += [
        Markup('<circle class="fold" cx="{}" cy="13" r="2.6"/>').format(panel.px(f)) for f in folds
    ]
    low, high = panel.px(mean - error), panel.px(mean + error)
    parts.append(
        Markup('<path class="error" d="M{0} 13H{1}M{0} 8.5v9M{1} 8.5v9"/>').format(low, high)
    )
    parts.append(Markup('<circle class="mean" cx="{}" cy="13" r="3"/>').format(panel.px(mean)))
    return panel.drawing(f"AUC {100 * mean:.1f} ± {100 * error:.1f}", parts)


def _join(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)


def _number(value: float) -> str:
    return escape(f"{value:.1f}".removesuffix(".0"))


def _between(one: str, other: str, place: float) -> str:
    ends = [[int(colour[k : k + 2], 16) for k in (1, 3, 5)] for colour in (one, other)]
    return "#" + "".join(f"{round(a + (b - a) * place):02x}" for a, b in zip(*ends, strict=True))
