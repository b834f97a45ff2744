"""The kinds of reports: for each, its words, its numbers, and how they are drawn."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.utils.translation import gettext_lazy as _
from rest_framework.serializers import Serializer

from bookings.reports import charts, figures, serializers
from bookings.reports.charts import Chart
from bookings.reports.figures import Figures
from bookings.reports.periods import Period
from bookit import spreadsheets
from bookit.extensions import Extensions

# Text of Django's lazy translations.
Words = Any
# The caption and the rows of a table.
Table = tuple[Words, list[dict[str, Any]]]


def whole(found: Figures) -> list[Table]:
    """Return one table with all rows."""
    return [("", found.rows)]


def by_month_and_by_service(found: Figures) -> list[Table]:
    """Return a table by month and a table by service.

    The table by service is ordered by currency, then by revenue, the highest first.
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
        serializer: describes its numbers. Its fields are the columns of tables and CSV files.
        labels: the words for columns and totals, by name. A page shows only those with words.
        tables: returns the tables that a page shows.
        permission: the permission that an API key of an admin needs to read it.
    """

    title: Words
    about: Words
    figures: Callable[[Period], Figures]
    draw: Callable[[Period, Figures], list[Chart]]
    serializer: type[Serializer[Any]]
    labels: dict[str, Words]
    tables: Callable[[Figures], list[Table]] = whole
    permission: str = "bookings.view_booking"

    @cached_property
    def columns(self) -> dict[str, Any]:
        """The fields of a row, by name, in order."""
        results: Any = self.serializer().fields["results"]
        return dict(results.child.fields)

    @cached_property
    def total_columns(self) -> dict[str, Any]:
        """The fields of the totals, by name, in order."""
        totals: Any = self.serializer().fields["totals"]
        return dict(totals.fields)

    def document(self, period: Period) -> dict[str, Any]:
        """Return the report as the API shows it."""
        found = self.figures(period)
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
        serializers.UtilisationSerializer,
        {
            "calendar": _("Calendar"),
            "bookings": _("Bookings"),
            "open_minutes": _("Open"),
            "booked_minutes": _("Booked"),
            "utilisation": _("Utilisation"),
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
        serializers.RevenueSerializer,
        {
            "month": _("Month"),
            "service": _("Service"),
            "currency": _("Currency"),
            "bookings": _("Completed"),
            "revenue": _("Revenue"),
            "upcoming": _("To come"),
            "expected": _("Expected"),
        },
        by_month_and_by_service,
    )
)
REPORTS.add("customers")(
    Report(
        _("Customers"),
        _("How many customers had bookings each month, and how many of them were new."),
        figures.customers,
        charts.customers,
        serializers.CustomersSerializer,
        {
            "month": _("Month"),
            "customers": _("Customers"),
            "new": _("New"),
            "returning": _("Returning"),
        },
    )
)
REPORTS.add("lead_time")(
    Report(
        _("Lead time"),
        _("How long before the start people book."),
        figures.lead_time,
        charts.lead_time,
        serializers.LeadTimeSerializer,
        {
            "lead_time": _("Booked before the start"),
            "bookings": _("Bookings"),
            "share": _("Share"),
            "median_hours": _("Median"),
            "average_hours": _("Average"),
        },
    )
)
REPORTS.add("cancellations")(
    Report(
        _("Cancellations"),
        _("How many bookings were cancelled or missed."),
        figures.cancellations,
        charts.cancellations,
        serializers.CancellationsSerializer,
        {
            "month": _("Month"),
            "bookings": _("Bookings"),
            "cancelled": _("Cancelled"),
            "cancellation_rate": _("Cancelled, share"),
            "no_show": _("No-shows"),
            "no_show_rate": _("No-shows, share"),
            "expired": _("Expired"),
        },
    )
)
