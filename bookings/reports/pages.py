"""The pages of reports in the admin site."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, NamedTuple
from urllib.parse import urlencode

from dateutil.relativedelta import relativedelta
from django import forms
from django.contrib import admin
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    StreamingHttpResponse,
)
from django.template.response import TemplateResponse
from django.urls import path, reverse, reverse_lazy
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_safe

from bookings.reports.columns import amount
from bookings.reports.figures import Figures
from bookings.reports.kinds import REPORTS, Report, Table
from bookings.reports.periods import Period, chosen
from bookit import spreadsheets
from bookit.adminsite.extensions import PAGES, Page
from bookit.adminsite.fields import DayField
from bookit.adminsite.menu import Menu
from bookit.errors import Invalid
from bookit.times import zone

# A table on a page has at most this number of rows. The CSV file leaves out nothing.
MAX_ROWS = 100


class Cell(NamedTuple):
    """A cell of a table: its text, and whether its column has numbers."""

    text: str
    is_number: bool


class PeriodForm(forms.Form):
    """The first and the last day of the period of a report."""

    # `from` is a Python keyword, so the class body cannot assign to it.
    vars()["from"] = DayField(label=_("From"), required=False)
    to = DayField(label=_("To"), required=False)


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """Redirect to the first report."""
    return HttpResponseRedirect(_address(next(iter(REPORTS))))


@require_safe
def page(request: HttpRequest, name: str) -> HttpResponse:
    """Show a report as charts and tables. If the period is not valid, the form says why."""
    report = _found(name)
    period, form = _period(request)
    query = urlencode(form.initial)
    context = {
        **admin.site.each_context(request),
        "title": report.title,
        "report": report,
        "form": form,
        "period": period,
        "zone": str(period.tz) if period else "",
        "presets": _presets(request, name, form.initial),
        "tabs": [
            (each.title, f"{_address(key)}?{query}", key == name) for key, each in REPORTS.items()
        ],
        "csv": f"{reverse('admin:report_csv', args=[name])}?{query}",
    }
    if period:
        found = report.figures(period)
        context["charts"] = report.draw(period, found)
        context["totals"] = [*_totals(report, found)]
        context["tables"] = [_table(report, table) for table in report.tables(found)]
    return TemplateResponse(
        request, "admin/bookings/reports.html", context, status=200 if period else 400
    )


@require_safe
def csv_file(request: HttpRequest, name: str) -> Any:
    """Return the rows of a report as a CSV file, or the page if the period is not valid."""
    report = _found(name)
    period, _form = _period(request)
    if period is None:
        return page(request, name)
    parts = report.csv(report.figures(period).rounded().rows)
    last = (period.end - timedelta(microseconds=1)).astimezone(period.tz)
    first = period.start.astimezone(period.tz)
    return StreamingHttpResponse(
        spreadsheets.encoded(parts),
        content_type="text/csv; charset=utf-8",
        headers={
            "Content-Disposition": (
                f'attachment; filename="{name}-{first:%Y-%m-%d}-{last:%Y-%m-%d}.csv"'
            )
        },
    )


def _found(name: str) -> Report:
    """Return the report that the path names.

    Raises:
        Http404: there is no such report.
    """
    if name not in REPORTS:
        raise Http404
    return REPORTS[name]


def _period(request: HttpRequest) -> tuple[Period | None, PeriodForm]:
    """Return the requested period, or None if it is not valid, and the form that shows it."""
    tz = zone(request.user.timezone)  # type: ignore[union-attr]
    form = PeriodForm(request.GET)
    if form.is_valid():
        days = form.cleaned_data
        try:
            period = chosen(from_=days["from"], to=days["to"], tz=tz, at=timezone.now())
        except Invalid as error:
            form.add_error(None, error.errors)
        else:
            last = period.end - timedelta(microseconds=1)
            return period, PeriodForm(
                initial={
                    "from": f"{period.start.astimezone(tz):%Y-%m-%d}",
                    "to": f"{last.astimezone(tz):%Y-%m-%d}",
                }
            )
    return None, form


def _address(name: str) -> str:
    return reverse("admin:report", args=[name])


def _presets(
    request: HttpRequest, name: str, shown: Mapping[str, Any]
) -> list[tuple[Any, str, bool]]:
    """Return the text and the URL of each common period, and whether the page shows it."""
    tz = zone(request.user.timezone)  # type: ignore[union-attr]
    today = timezone.now().astimezone(tz).date()
    first = today.replace(day=1)
    day = timedelta(days=1)
    periods = [
        (_("This month"), first, first + relativedelta(months=1) - day),
        (_("Last month"), first - relativedelta(months=1), first - day),
        (_("Last 30 days"), today - 29 * day, today),
        (_("Last 12 months"), first - relativedelta(months=11), today),
        (_("Next 3 months"), today, today + relativedelta(months=3) - day),
    ]
    presets = []
    for text, begins, ends in periods:
        days = {"from": begins.isoformat(), "to": ends.isoformat()}
        presets.append((text, f"{_address(name)}?{urlencode(days)}", days == shown))
    return presets


def _totals(report: Report, found: Figures) -> Iterator[tuple[str, str]]:
    """Yield the label and the value of each total that the page shows."""
    # The revenue report has totals for each currency.
    for total in found.totals.get("currencies", [found.totals]):
        for name, column in (report.columns | report.totals).items():
            if column.label and name in total and name != "currency":
                text = column.text(total[name])
                if column.written is amount:
                    text = f"{text} {total['currency']}"
                yield str(column.label), text


def _table(report: Report, table: Table) -> dict[str, Any]:
    """Return a table as texts, with at most `MAX_ROWS` rows and a note about the other rows."""
    caption, rows = table
    shown = {
        name: column
        for name, column in report.columns.items()
        if column.label and name in (rows or [{}])[0]
    }
    left_out = len(rows) - MAX_ROWS
    return {
        "caption": caption,
        "header": [Cell(str(column.label), column.is_number) for column in shown.values()],
        "rows": [
            [Cell(column.text(row[name]), column.is_number) for name, column in shown.items()]
            for row in rows[:MAX_ROWS]
        ],
        "note": ngettext(
            "%(count)d more row is not shown. The CSV file leaves out nothing.",
            "%(count)d more rows are not shown. The CSV file leaves out nothing.",
            left_out,
        )
        % {"count": left_out}
        if left_out > 0
        else "",
    }


URLS = [
    path("reports/", index, name="reports"),
    path("reports/<slug:name>/", page, name="report"),
    path("reports/<slug:name>.csv", csv_file, name="report_csv"),
]


def add_to_menu(name: str) -> None:
    """Add a report to the menu. An app that adds a report calls this function."""
    address = reverse_lazy("admin:report", args=[name])
    # The same URLs serve all reports, so only the first report adds the URLs.
    urls = () if any(each.startswith("report_") for each in PAGES) else URLS
    PAGES.add(f"report_{name}")(Page(Menu.REPORTS, REPORTS[name].title, address, urls=urls))


for each in REPORTS:
    add_to_menu(each)
