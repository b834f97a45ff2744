"""Computes the columns, bars and labels of charts, which `reports.html` draws as inline SVG.

Screen readers skip the charts, because the table below a chart contains its numbers.

The columns and bars have CSS classes instead of colours. The stylesheet chooses the colours, for
light and for dark pages.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from math import floor, log10
from typing import Any

from django.utils.formats import date_format, number_format
from django.utils.translation import gettext as _

from bookings.reports.figures import Figures
from bookings.reports.periods import Period

# The size of a chart and of the margins around its columns, in the units of the SVG.
WIDTH, HEIGHT = 760, 260
LEFT, RIGHT, TOP, BOTTOM = 72, 8, 16, 28
# The y of the value 0. In an SVG, y grows downwards.
BASELINE = HEIGHT - BOTTOM
# The share of a group's width that its columns fill.
FILLED = 0.7
# The maximum width of a column. Without it, the columns of a chart of two months would be too wide.
MAX_WIDTH = 64
# The maximum number of labels below the columns. If there are more groups, only some have a label.
MAX_LABELS = 7
# A chart has at most this number of horizontal bars.
MAX_BARS = 30

Number = int | float | Decimal


@dataclass(frozen=True)
class Rectangle:
    """A rectangle. `series` is the index of its series, and `title` is its tooltip."""

    x: float
    y: float
    width: float
    height: float
    series: int
    title: str


@dataclass(frozen=True)
class Label:
    """A text at a place of a chart."""

    x: float
    y: float
    text: str


@dataclass
class Chart:
    """A chart with columns, or, if `bars` is not empty, with horizontal bars.

    Args:
        title: what it shows.
        series: the name of each series of columns.
        ticks: the lines behind the columns, with their values.
        labels: the texts below the columns.
        bars: for each horizontal bar its name, its value as text, and its length in per cent.
        left_out: the number of bars that the chart does not show.
    """

    title: str
    series: list[str] = field(default_factory=list)
    columns: list[Rectangle] = field(default_factory=list)
    ticks: list[Label] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    bars: list[tuple[str, str, float]] = field(default_factory=list)
    left_out: int = 0

    # The template reads these.
    width, height = WIDTH, HEIGHT
    left, right = LEFT, WIDTH - RIGHT


def utilisation(period: Period, found: Figures) -> list[Chart]:
    """Return the chart of the most used calendars."""
    opened = [row for row in found.rows if row["utilisation"] is not None]
    opened.sort(key=lambda row: (-row["utilisation"], row["calendar"]))
    return [
        _bars(
            _("Booked share of the open time"),
            [(row["calendar"], percent(row["utilisation"]), row["utilisation"]) for row in opened],
            full=1,
        )
    ]


def revenue(period: Period, found: Figures) -> list[Chart]:
    """Return a chart by month for each currency."""
    charts = []
    for total in found.totals["currencies"]:
        currency = total["currency"]
        sums: dict[str, list[Decimal]] = {
            name: [Decimal(0), Decimal(0)] for name, _begins in period.months
        }
        for row in found.rows:
            if row["currency"] == currency:
                sums[row["month"]][0] += row["revenue"]
                sums[row["month"]][1] += row["expected"]
        charts.append(
            _columns(
                _("Revenue in %(currency)s") % {"currency": currency},
                [_("Completed"), _("Expected")],
                [(month(name), amounts) for name, amounts in sums.items()],
                stacked=True,
            )
        )
    return charts


def customers(period: Period, found: Figures) -> list[Chart]:
    """Return the chart of returning and new customers by month."""
    return [
        _columns(
            _("Customers by month"),
            [_("Returning"), _("New")],
            [(month(row["month"]), [row["returning"], row["new"]]) for row in found.rows],
            stacked=True,
        )
    ]


def lead_time(period: Period, found: Figures) -> list[Chart]:
    """Return the chart of lead times, with a bar for each range of lead times."""
    largest = max((row["share"] or 0 for row in found.rows), default=0)
    return [
        _bars(
            _("How long before the start people book"),
            [(_(row["lead_time"]), percent(row["share"]), row["share"] or 0) for row in found.rows],
            full=largest,
        )
    ]


def cancellations(period: Period, found: Figures) -> list[Chart]:
    """Return the chart of the rates of cancellations and no-shows by month, in per cent."""
    return [
        _columns(
            _("Cancelled and missed bookings, in per cent"),
            [_("Cancelled"), _("No-shows")],
            [
                (
                    month(row["month"]),
                    [100 * (row["cancellation_rate"] or 0), 100 * (row["no_show_rate"] or 0)],
                )
                for row in found.rows
            ],
        )
    ]


def by_month(title: str, name: str, values: Sequence[tuple[str, Number]]) -> Chart:
    """Return a chart with one column for each month."""
    return _columns(title, [name], [(month(text), [value]) for text, value in values])


def month(text: str) -> str:
    """Return a month such as `2026-12` in words."""
    return date_format(date.fromisoformat(f"{text}-01"), "SHORT_MONTH_FORMAT")


def percent(value: float | None) -> str:
    """Return a share in per cent."""
    return "-" if value is None else f"{number(100 * value, 1)} %"


def number(value: Any, decimals: int = 0) -> str:
    """Return a number with this many decimals. Django's `number_format` alone does not round."""
    return str(number_format(round(value, decimals), decimals, force_grouping=True))


def _bars(title: str, rows: list[tuple[str, str, float]], *, full: float) -> Chart:
    """Return a chart with a horizontal bar for each row, but with at most `MAX_BARS`.

    Args:
        rows: the name of each bar, its value as text, and its value.
        full: the value of a bar that is as long as the chart is wide. Longer bars are cut off.
    """
    return Chart(
        title,
        bars=[
            (name, text, round(min(100.0, 100 * value / full), 2) if full else 0.0)
            for name, text, value in rows[:MAX_BARS]
        ],
        left_out=max(0, len(rows) - MAX_BARS),
    )


def _columns(
    title: str,
    series: list[str],
    groups: Sequence[tuple[str, Sequence[Number]]],
    *,
    stacked: bool = False,
) -> Chart:
    """Return a chart with a group of columns for each label, side by side or stacked."""
    highest = max((sum(values) if stacked else max(values) for _, values in groups), default=0)
    step = _step(float(highest))
    highest_tick = step * max(1, -(-float(highest) // step))
    scale = (BASELINE - TOP) / highest_tick
    chart = Chart(title, series)
    count = round(highest_tick / step)
    chart.ticks = [
        Label(LEFT - 8, round(BASELINE - n * step * scale, 1), _tick(n * step, step))
        for n in range(count + 1)
    ]
    room = (WIDTH - LEFT - RIGHT) / max(1, len(groups))
    side_by_side = 1 if stacked else len(series)
    width = min(MAX_WIDTH, room * FILLED / side_by_side)
    every = -(-len(groups) // MAX_LABELS)
    for position, (label, values) in enumerate(groups):
        middle = LEFT + room * (position + 0.5)
        # The last group always has a label.
        if (len(groups) - 1 - position) % every == 0:
            chart.labels.append(Label(round(middle, 1), HEIGHT - 8, label))
        below = 0.0
        for index, value in enumerate(values):
            height = float(value) * scale
            offset = 0 if stacked else index
            chart.columns.append(
                Rectangle(
                    round(middle - width * side_by_side / 2 + offset * width, 1),
                    round(BASELINE - below - height, 1),
                    round(width - (0 if stacked else 1), 1),
                    round(height, 1),
                    index,
                    f"{label}, {series[index]}: {_value(value)}",
                )
            )
            below += height if stacked else 0
    return chart


def _step(highest: float) -> float:
    """Return the distance between two ticks: 1, 2 or 5 times a power of ten.

    With this distance, a chart has at most five ticks above 0.
    """
    if highest <= 0:
        return 1
    rough = highest / 5
    power: float = 10.0 ** floor(log10(rough))
    return next((n * power for n in (1, 2, 5) if rough <= n * power), 10 * power)


def _tick(value: float, step: float) -> str:
    return number(value, max(0, -floor(log10(step))))


def _value(value: Any) -> str:
    if isinstance(value, Decimal):
        return str(number_format(value, force_grouping=True))
    return number(value, 1 if isinstance(value, float) else 0)
