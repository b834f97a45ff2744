"""The kinds of reports: for each, its words, its numbers, and how they are drawn."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from bookings.reports import charts, figures
from bookings.reports.charts import Chart, month, number, percent
from bookings.reports.columns import Column, Words, amount, hours, minutes
from bookings.reports.figures import Figures
from bookings.reports.periods import Period
from bookit import spreadsheets
from bookit.extensions import Extensions

# The caption and the rows of a table.
Table = tuple[Words, list[dict[str, Any]]]


def whole(found: Figures) -> list[Table]:
    """Return one table with all rows."""
    return [("", found.rows)]


def by_month_and_by_service(found: Figures) -> list[Table]:
    """Return a table by month and a table by service.

    The table by service is ordered by currency, then by revenue and by expected revenue, the
    highest first.
    """
    months: dict[Any, dict[str, Any]] = {}
    services: dict[Any, dict[str, Any]] = {}
    for row in found.rows:
        for sums, names in ((months, ["month"]), (services, ["service_id", "service"])):
            names = [*names, "currency"]
            key = tuple(row[name] for name in names)
            total = sums.setdefault(key, {name: row[name] for name in names})
            for name in ("bookings", "revenue", "upcoming", "expected"):
                total[name] = total.get(name, 0) + row[name]
    largest = sorted(
        services.values(),
        key=lambda row: (row["currency"], -row["revenue"], -row["expected"], row["service"]),
    )
    return [(_("By month"), [*months.values()]), (_("By service"), largest)]


@dataclass(frozen=True)
class Report:
    """A kind of report.

    Args:
        title: what people call it.
        about: what it shows, in a sentence; `docs/reports.md` defines every number.
        figures: computes its numbers.
        draw: draws its numbers.
        columns: the columns of its rows, by name. CSV files have all of them, in this order.
        tables: returns the tables that a page shows.
        totals: the columns that only its totals have, by name.
        permission: the permission that an API key of an admin needs to read it.
    """

    title: Words
    about: Words
    figures: Callable[[Period], Figures]
    draw: Callable[[Period, Figures], list[Chart]]
    columns: dict[str, Column]
    tables: Callable[[Figures], list[Table]] = whole
    totals: dict[str, Column] = field(default_factory=dict)
    permission: str = "bookings.view_booking"

    def document(self, period: Period) -> dict[str, Any]:
        """Return the report as the API shows it."""
        found = self.figures(period).rounded()
        return {
            "from": period.start,
            "to": period.end,
            "timezone": str(period.tz),
            "results": found.rows,
            "totals": found.totals,
        }

    def csv(self, rows: Iterable[dict[str, Any]]) -> Iterable[str]:
        """Return the parts of a CSV file with the rows of the report."""
        return spreadsheets.written(
            self.columns, ([row[name] for name in self.columns] for row in rows)
        )


# The kinds of reports, by the name in their path.
REPORTS: Extensions[Report] = Extensions()

REPORTS.add("utilisation")(
    Report(
        _("Utilisation"),
        _("The booked share of the open time of each calendar."),
        figures.utilisation,
        charts.utilisation,
        {
            "calendar_id": Column(),
            "calendar": Column(_("Calendar")),
            "bookings": Column(_("Bookings"), number),
            "open_minutes": Column(_("Open"), minutes),
            "booked_minutes": Column(_("Booked"), minutes),
            "utilisation": Column(_("Utilisation"), percent),
        },
    )
)
REPORTS.add("revenue")(
    Report(
        _("Revenue"),
        _(
            "The prices of completed bookings, and the prices of bookings to come, by month and "
            "service."
        ),
        figures.revenue,
        charts.revenue,
        {
            "month": Column(_("Month"), month),
            "service_id": Column(),
            "service": Column(_("Service")),
            "currency": Column(_("Currency")),
            "bookings": Column(_("Completed"), number),
            "revenue": Column(_("Revenue"), amount),
            "upcoming": Column(_("To come"), number),
            "expected": Column(_("Expected"), amount),
        },
        tables=by_month_and_by_service,
    )
)
REPORTS.add("customers")(
    Report(
        _("Customers"),
        _("How many customers had bookings each month, and how many of them were new."),
        figures.customers,
        charts.customers,
        {
            "month": Column(_("Month"), month),
            "customers": Column(_("Customers"), number),
            "new": Column(_("New"), number),
            "returning": Column(_("Returning"), number),
        },
    )
)
REPORTS.add("lead_time")(
    Report(
        _("Lead time"),
        _("How long before the start people book."),
        figures.lead_time,
        charts.lead_time,
        {
            "lead_time": Column(_("Booked before the start"), gettext),
            "bookings": Column(_("Bookings"), number),
            "share": Column(_("Share"), percent),
        },
        totals={
            "median_hours": Column(_("Median"), hours),
            "average_hours": Column(_("Average"), hours),
        },
    )
)
REPORTS.add("cancellations")(
    Report(
        _("Cancellations"),
        _("How many bookings were cancelled or missed."),
        figures.cancellations,
        charts.cancellations,
        {
            "month": Column(_("Month"), month),
            "bookings": Column(_("Bookings"), number),
            "cancelled": Column(_("Cancelled"), number),
            "cancellation_rate": Column(_("Cancelled, share"), percent),
            "no_show": Column(_("No-shows"), number),
            "no_show_rate": Column(_("No-shows, share"), percent),
            "expired": Column(_("Expired"), number),
        },
    )
)
