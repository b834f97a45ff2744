"""Reports. Each number is compared with the result of a second, simpler computation."""

import csv
import io
from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from random import Random
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone

from accounts.keys.services import create_key
from accounts.tests.factories import AdminFactory, UserFactory, staff
from bookings.models import Booking, BookingEvent
from bookings.reports.kinds import REPORTS
from bookings.reports.periods import Period, chosen
from bookings.tests.factories import BookingFactory
from bookit import spreadsheets
from bookit.errors import Invalid
from bookit.runtime.startup import BASE_DIR
from bookit.tests.expect import problem
from catalog.models import OpeningHours, TimeOff
from catalog.tests.factories import CalendarFactory, ServiceFactory, TimeOffFactory
from reviews.models import Review
from reviews.services import create_review
from reviews.tests.factories import ReviewFactory

pytestmark = pytest.mark.django_db

LISBON = ZoneInfo("Europe/Lisbon")
# In Lisbon, the clocks go forward on 29 March 2026.
SPRING = Period(
    datetime(2026, 2, 10, 23, 30, tzinfo=UTC), datetime(2026, 4, 20, 6, 15, tzinfo=UTC), LISBON
)
PERIODS = [
    SPRING,
    Period(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC), UTC),
    Period(datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 2, 1, tzinfo=UTC), UTC),
]
BOOKED = {"pending", "confirmed", "completed", "no_show"}
HOUR = timedelta(hours=1)


@pytest.fixture
def town():
    """Create bookings of all statuses in a chair, a class and a room, around `SPRING`."""
    random = Random(7)
    customers = UserFactory.create_batch(12)
    calendars = [
        CalendarFactory(name="Chair", timezone="Europe/Lisbon"),
        CalendarFactory(name="Studio", timezone="America/New_York"),
        CalendarFactory(name="Room"),
    ]
    # Chair and studio are closed on Mondays and from 12:00 to 13:00. The room is always open.
    for calendar in calendars[:2]:
        for weekday in range(1, 7):
            OpeningHours.objects.create(calendar=calendar, weekday=weekday, opens=0, closes=720)
            OpeningHours.objects.create(calendar=calendar, weekday=weekday, opens=780, closes=1440)
    # Both long times off contain a short one. The second long one ends after `SPRING`.
    for start, days in [(datetime(2026, 3, 3, 5, tzinfo=UTC), 2), (SPRING.end - 5 * HOUR, 1)]:
        for calendar in (calendars[0], calendars[2]):
            TimeOffFactory(
                calendar=calendar, start_time=start, end_time=start + timedelta(days=days)
            )
            TimeOffFactory(calendar=calendar, start_time=start + HOUR, end_time=start + 2 * HOUR)
    services = [
        ServiceFactory(calendar=calendars[0], title="Cut", duration_minutes=45),
        ServiceFactory(calendar=calendars[1], title="Yoga", capacity=4, duration_minutes=60),
        ServiceFactory(
            calendar=calendars[2],
            title="=1+1",
            price=Decimal(900),
            currency="JPY",
            duration_minutes=90,
        ),
    ]
    statuses = [str(status) for status in Booking.Status]
    for service in services:
        for number in range(60):
            start = SPRING.start - timedelta(days=20) + number * timedelta(hours=38, minutes=5)
            # Bookings of different seats of the class overlap, and some seats stay free.
            for seat in range(1, service.capacity + 1):
                if seat > 1 and random.random() < 0.5:
                    continue
                BookingFactory(
                    service=service,
                    user=random.choice(customers),
                    seat=seat,
                    start_time=start + timedelta(minutes=25 * (seat - 1)),
                    status=random.choice(statuses),
                    created_at=start - HOUR * random.choice([-1, 0, 1, 5, 30, 100, 200, 400, 900]),
                )
    # This booking overlaps the beginning of the period.
    BookingFactory(service=services[0], start_time=SPRING.start - HOUR / 2, status="completed")
    # Every third cancelled booking was a hold that somebody released.
    for number, booking in enumerate(Booking.objects.filter(status="cancelled")):
        was = {"status": ("held", "pending", "confirmed")[number % 3]}
        BookingEvent.objects.create(
            calendar=booking.calendar,
            booking=booking,
            type="booking.cancelled",
            at=booking.start_time,
            data={"status": "cancelled", "was": was},
        )
    for booking in Booking.objects.filter(status="completed"):
        ReviewFactory(
            booking=booking, rating=random.randint(1, 5), created_at=booking.end_time + HOUR
        )


def begins_in(period):
    return [each for each in Booking.objects.all() if period.start <= each.start_time < period.end]


def month_of(moment, period):
    return f"{moment.astimezone(period.tz):%Y-%m}"


def months(period):
    """Return the months of a period, found by looking at every half hour."""
    steps = (period.end - period.start) // timedelta(minutes=30)
    moments = (period.start + timedelta(minutes=30) * n for n in range(steps + 1))
    return sorted({month_of(each, period) for each in moments if each < period.end})


def is_open(moment, zone, hours, off):
    """Return whether a calendar is open in the minute that begins at `moment`."""
    local = moment.astimezone(zone)
    minute = local.hour * 60 + local.minute
    inside = any(
        day == local.weekday() and opens <= minute < closes for day, opens, closes in hours
    )
    return (inside or not hours) and not any(start <= moment < end for start, end in off)


def plain_utilisation(period):
    """Return the rows and totals of the report, by looking at every fifth minute.

    All times in `town` are multiples of five minutes.
    """
    step = timedelta(minutes=5)
    rows = []
    for calendar in sorted({each.calendar for each in Booking.objects.all()}, key=str):
        hours = [*calendar.hours.values_list("weekday", "opens", "closes")]
        off = [*calendar.time_off.values_list("start_time", "end_time")]
        zone = ZoneInfo(calendar.timezone)
        taken = [
            each
            for each in calendar.bookings.filter(status__in=BOOKED)
            if each.start_time < period.end and each.end_time > period.start
        ]
        busy = set()
        for each in taken:
            moment = each.start_time
            while moment < each.end_time:
                busy.add(moment)
                moment += step
        open_minutes = booked_minutes = 0
        moment = period.start
        while moment < period.end:
            open_minutes += 5 * is_open(moment, zone, hours, off)
            booked_minutes += 5 * (moment in busy)
            moment += step
        rows.append(
            {
                "calendar_id": calendar.pk,
                "calendar": calendar.name,
                "bookings": len(taken),
                "open_minutes": open_minutes,
                "booked_minutes": booked_minutes,
                "utilisation": round(booked_minutes / open_minutes, 4),
            }
        )
    names = ("bookings", "open_minutes", "booked_minutes")
    totals = {name: sum(row[name] for row in rows) for name in names}
    rate = round(totals["booked_minutes"] / totals["open_minutes"], 4)
    return rows, {**totals, "utilisation": rate}


def plain_revenue(period):
    rows = {}
    for each in begins_in(period):
        if each.status not in ("pending", "confirmed", "completed"):
            continue
        month = month_of(each.start_time, period)
        key = (month, each.service.title, str(each.service_id), each.currency)
        row = rows.setdefault(
            key,
            {
                "month": month,
                "service_id": each.service_id,
                "service": each.service.title,
                "currency": each.currency,
                "bookings": 0,
                "revenue": Decimal(0),
                "upcoming": 0,
                "expected": Decimal(0),
            },
        )
        done = each.status == "completed"
        row["bookings" if done else "upcoming"] += 1
        row["revenue" if done else "expected"] += each.price
    names = ("bookings", "revenue", "upcoming", "expected")
    currencies = [
        {
            "currency": currency,
            **{
                name: sum(row[name] for row in rows.values() if row["currency"] == currency)
                for name in names
            },
        }
        for currency in sorted({row["currency"] for row in rows.values()})
    ]
    return [*rows.values()], {"currencies": currencies}


def plain_customers(period):
    booked = [each for each in Booking.objects.all() if each.status in BOOKED]
    first = {}
    for each in booked:
        first[each.user_id] = min(each.start_time, first.get(each.user_id, each.start_time))
    visits = [each for each in booked if period.start <= each.start_time < period.end]

    def counts(visits, is_new):
        users = {each.user_id for each in visits}
        new = {user for user in users if is_new(first[user])}
        return {
            "customers": len(users),
            "new": len(new),
            "returning": len(users - new),
        }

    rows = [
        {
            "month": month,
            **counts(
                [each for each in visits if month_of(each.start_time, period) == month],
                lambda at, month=month: at >= period.start and month_of(at, period) == month,
            ),
        }
        for month in months(period)
    ]
    return rows, counts(visits, lambda at: at >= period.start)


def plain_lead_time(period):
    leads = sorted(
        (each.start_time - each.created_at) / HOUR
        for each in begins_in(period)
        if each.status in BOOKED and each.created_at <= each.start_time
    )
    ranges = [
        ("under 1 hour", 0, 1),
        ("1 to 24 hours", 1, 24),
        ("1 to 3 days", 24, 72),
        ("3 to 7 days", 72, 168),
        ("1 to 2 weeks", 168, 336),
        ("2 to 4 weeks", 336, 672),
        ("4 weeks or more", 672, 1e9),
    ]
    rows = []
    for name, low, high in ranges:
        number = len([lead for lead in leads if low <= lead < high])
        share = round(number / len(leads), 4) if leads else None
        rows.append({"lead_time": name, "bookings": number, "share": share})
    return rows, {
        "bookings": len(leads),
        "median_hours": int(leads[(len(leads) - 1) // 2]) if leads else None,
        "average_hours": round(sum(leads) / len(leads), 1) if leads else None,
    }


def plain_cancellations(period):
    released = {
        event.booking_id
        for event in BookingEvent.objects.all()
        if event.type == "booking.cancelled" and event.data["was"]["status"] == "held"
    }

    def counts(bookings):
        count = Counter(each.status for each in bookings)
        booked = sum(count[status] for status in BOOKED) + count["cancelled"]
        ended = count["completed"] + count["no_show"]
        return {
            "bookings": booked,
            "cancelled": count["cancelled"],
            "cancellation_rate": round(count["cancelled"] / booked, 4) if booked else None,
            "no_show": count["no_show"],
            "no_show_rate": round(count["no_show"] / ended, 4) if ended else None,
            "expired": count["expired"],
        }

    found = [each for each in begins_in(period) if each.pk not in released]
    rows = [
        {
            "month": month,
            **counts(each for each in found if month_of(each.start_time, period) == month),
        }
        for month in months(period)
    ]
    return rows, counts(found)


def plain_reviews(period):
    by_month = defaultdict(list)
    for each in Review.objects.all():
        if period.start <= each.created_at < period.end:
            by_month[month_of(each.created_at, period)].append(each.rating)

    def counts(ratings):
        return {
            "reviews": len(ratings),
            "rating_average": round(sum(ratings) / len(ratings), 2) if ratings else None,
            **{f"rating_{stars}": ratings.count(stars) for stars in range(1, 6)},
        }

    rows = [{"month": month, **counts(by_month[month])} for month in months(period)]
    return rows, counts([rating for ratings in by_month.values() for rating in ratings])


PLAIN = {
    "utilisation": plain_utilisation,
    "revenue": plain_revenue,
    "customers": plain_customers,
    "lead_time": plain_lead_time,
    "cancellations": plain_cancellations,
    "reviews": plain_reviews,
}


def in_any_order(rows):
    """Sort the rows, because PostgreSQL and Python can sort names and titles differently."""
    return sorted(rows, key=repr)


@pytest.mark.parametrize(
    "distributed",
    [pytest.param(False, marks=pytest.mark.one_server("Citus refuses the statement")), True],
)
@pytest.mark.parametrize("name", PLAIN)
def test_each_number_equals_the_result_of_a_simpler_computation(
    town, name, distributed, monkeypatch
):
    """The statements for a distributed database give the same results on one server."""
    monkeypatch.setattr("bookings.reports.figures.is_distributed", lambda: distributed)
    for period in PERIODS:
        found = REPORTS[name].figures(period).rounded()
        rows, totals = PLAIN[name](period)
        assert in_any_order(found.rows) == in_any_order(rows)
        assert found.totals == totals
    assert PLAIN.keys() == REPORTS.keys()


def test_the_average_rating_is_rounded_like_that_of_the_service():
    service = ServiceFactory(capacity=8)
    for seat in range(1, 9):
        booking = BookingFactory(service=service, seat=seat, status="completed")
        stars = 5 if seat == 1 else 4
        create_review(actor=booking.user, booking_id=booking.pk, rating=stars, at=SPRING.start)
    service.refresh_from_db()
    # The average is 4.125.
    assert REPORTS["reviews"].figures(SPRING).totals["rating_average"] == 4.13
    assert service.rating_average == Decimal("4.13")


def test_the_town_has_something_to_count(town):
    """Control for the comparison of each number, which would pass if nothing were counted."""
    customers = plain_customers(SPRING)[1]
    assert min(customers.values()) > 0
    assert all(row["bookings"] for row in plain_lead_time(SPRING)[0])
    lost = plain_cancellations(SPRING)[1]
    assert lost["no_show"]
    assert lost["expired"]
    cancelled = [each for each in begins_in(SPRING) if each.status == "cancelled"]
    assert 0 < lost["cancelled"] < len(cancelled)
    assert {row["currency"] for row in plain_revenue(SPRING)[0]} == {"USD", "JPY"}
    chair, room, studio = sorted(plain_utilisation(SPRING)[0], key=lambda row: row["calendar"])
    assert chair["open_minutes"] < room["open_minutes"]
    # The bookings of the class, which take an hour each, overlap.
    assert studio["booked_minutes"] < 60 * studio["bookings"]
    assert all(plain_reviews(SPRING)[1].values())
    assert TimeOff.objects.count() == 8


def test_each_month_after_the_first_begins_at_midnight_in_the_zone():
    assert SPRING.months == [
        ("2026-02", SPRING.start),
        ("2026-03", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-04", datetime(2026, 3, 31, 23, tzinfo=UTC)),
    ]


def test_a_period_is_twelve_months_by_default():
    at = datetime(2026, 3, 31, 23, 30, tzinfo=UTC)

    period = chosen(from_=None, to=None, tz=LISBON, at=at)

    assert period.end == datetime(2026, 4, 1, 23, tzinfo=UTC)
    names = [name for name, _ in period.months]
    assert (len(names), names[0], names[-1]) == (12, "2025-05", "2026-04")
    in_utc = [name for name, _ in chosen(from_=None, to=None, tz=UTC, at=at).months]
    assert (len(in_utc), in_utc[0], in_utc[-1]) == (12, "2025-04", "2026-03")


@pytest.mark.parametrize(
    ("from_", "to"),
    [(date(2026, 3, 2), date(2026, 3, 1)), (date(2020, 1, 1), date(2026, 1, 1))],
)
def test_a_period_that_is_reversed_or_too_long_is_refused(from_, to):
    with pytest.raises(Invalid):
        chosen(from_=from_, to=to, tz=UTC, at=timezone.now())


def test_a_period_can_have_1098_days_in_which_the_clocks_are_set_back():
    """In Lisbon, the clocks are set back on 25 October 2026."""
    first, last, at = date(2023, 10, 25), date(2026, 10, 26), timezone.now()
    period = chosen(from_=first, to=last, tz=LISBON, at=at)
    assert period.end - period.start == timedelta(days=1098, hours=1)
    with pytest.raises(Invalid):
        chosen(from_=first, to=date(2026, 10, 27), tz=LISBON, at=at)


# --- the API ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLAIN)
def test_the_api_returns_the_same_numbers_as_json_and_csv(api, town, name):
    admin = api.as_(AdminFactory())
    path = f"/reports/{name}?from=2026-02-10&to=2026-04-20&tz=Europe/Lisbon"

    response = admin.get(path)

    assert response.status_code == 200, response.content
    shown = response.json()
    assert shown["from"] == "2026-02-10T00:00:00+00:00"
    assert shown["to"] == "2026-04-21T00:00:00+01:00"
    assert shown["timezone"] == "Europe/Lisbon"
    assert shown["results"]
    sheet = admin.get(path, HTTP_ACCEPT="text/csv")
    assert sheet["Content-Type"] == "text/csv; charset=utf-8"
    header, *rows = csv.reader(io.StringIO(sheet.content.decode()))
    assert header == [*REPORTS[name].columns] == [*shown["results"][0]]
    cells = [
        ["" if value is None else str(value) for value in row.values()] for row in shown["results"]
    ]
    assert [[cell.removeprefix("'") for cell in row] for row in rows] == cells


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("text/csv, application/json;q=0.5", "text/csv; charset=utf-8"),
        ("application/json;q=0.9, text/*", "text/csv; charset=utf-8"),
        ("text/csv, */*;q=0.1", "text/csv; charset=utf-8"),
        ("application/json;q=0.5, text/csv;q=0.4", "application/json"),
        ("text/csv;q=0, */*;q=0.1", "application/json"),
        ("text/csv, application/json", "application/json"),
        ("application/json;x*=made-up''x, text/csv", "text/csv; charset=utf-8"),
    ],
)
def test_the_weights_of_the_accept_header_decide_the_format(api, accept, media_type):
    response = api.as_(AdminFactory()).get("/reports/customers", HTTP_ACCEPT=accept)
    assert (response.status_code, response["Content-Type"]) == (200, media_type)


def test_a_title_that_is_a_formula_is_a_text_in_the_csv_file(api, town):
    path = "/reports/revenue?from=2026-02-10&to=2026-04-20"

    sheet = api.as_(AdminFactory()).get(path, HTTP_ACCEPT="text/csv")

    assert ",'=1+1,JPY," in sheet.content.decode()


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@A1", "\tx", "\rx", "\nx"])
def test_a_cell_that_would_be_a_formula_begins_with_an_apostrophe(text):
    assert spreadsheets.cell(text) == f"'{text}"


@pytest.mark.parametrize(
    ("separator", "quotes"),
    [(";", ""), ("\t", ""), ("\n", ""), ("\r\n", ""), (";", '"'), (";", '""')],
)
def test_a_cell_has_no_formula_where_another_separator_would_begin_a_cell(separator, quotes):
    text = f"Ana{separator}{quotes}=1+1{separator}{quotes}b"
    cell = spreadsheets.cell(text)
    assert cell == f"Ana{separator}'{quotes}=1+1{separator}{quotes}b"
    assert spreadsheets.without_apostrophes(cell) == text


@pytest.mark.parametrize("value", ["a=1", "a; b", "a;b", "a\nb", "", -1, Decimal(-1), None, 0.5])
def test_a_cell_that_would_not_be_a_formula_is_unchanged(value):
    assert spreadsheets.cell(value) == value


def test_a_large_file_is_written_in_parts():
    count = 2 * spreadsheets.BATCH + 1
    parts = [*spreadsheets.written(["a"], ([n] for n in range(count)))]

    assert len(parts) == 3
    assert "".join(parts).splitlines() == ["a", *map(str, range(count))]
    assert [*spreadsheets.written(["a", "b"], [])] == ["a,b\r\n"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=2026-03-02&to=2026-03-01", "to"),
        ("from=2020-01-01&to=2026-01-01", "to"),
        ("from=yesterday", "from"),
        ("month=3", "month"),
    ],
)
def test_a_period_or_parameter_that_is_not_valid_is_a_400(api, query, field):
    response = api.as_(AdminFactory()).get(f"/reports/revenue?{query}")

    problem(response, 400, "validation_error", field)


@pytest.mark.parametrize("name", PLAIN)
def test_the_documentation_names_each_report_and_its_numbers(client, name):
    document = client.get("/openapi.json").json()["paths"]["/reports/{name}"]["get"]
    assert f"`{name}`" in document["description"]
    page = (BASE_DIR / "docs/reports.md").read_text()
    assert f"| `{name}` |" in page
    numbers = {*REPORTS[name].columns} - {"month", "service_id", "service", "currency"}
    numbers -= {"calendar_id", "calendar", "lead_time", *(f"rating_{n}" for n in (2, 3, 4))}
    assert all(f"`{column}`" in page for column in numbers)


def test_an_api_key_needs_the_permission_to_view_the_rows_that_a_report_counts(api):
    for permission, allowed in [
        ("bookings.view_booking", "revenue"),
        ("reviews.view_review", "reviews"),
    ]:
        _, key = create_key(
            owner=AdminFactory(), name="BI", permissions=[permission], at=timezone.now()
        )
        api.credentials(HTTP_AUTHORIZATION=f"Bearer {key}")
        statuses = {
            name: api.get(f"/reports/{name}").status_code for name in ("revenue", "reviews")
        }
        assert statuses == {name: 200 if name == allowed else 403 for name in statuses}


def test_an_unknown_report_is_a_404(api):
    problem(api.as_(AdminFactory()).get("/reports/profit"), 404, "not_found")


@pytest.mark.parametrize("name", PLAIN)
def test_a_report_takes_one_query_and_utilisation_at_most_five(
    town, name, django_assert_max_num_queries
):
    with django_assert_max_num_queries(5 if name == "utilisation" else 1):
        REPORTS[name].figures(SPRING)


# --- the admin site ---------------------------------------------------------------------------


@pytest.fixture
def site(client):
    client.force_login(AdminFactory(timezone="Europe/Lisbon"))
    return client


SPRING_DAYS = {"from": "2026-02-10", "to": "2026-04-20"}


def test_a_page_rounds_a_share_once(site):
    """Programs get a share of 3.448 per cent as 0.0345, which would become 3.5 per cent."""
    service = ServiceFactory(capacity=29)
    for seat in range(1, 30):
        status = "cancelled" if seat == 1 else "confirmed"
        BookingFactory(service=service, seat=seat, start_time=SPRING.start, status=status)
    page = site.get("/admin/reports/cancellations/", SPRING_DAYS).content.decode()
    assert "3.4 %" in page
    assert "3.5 %" not in page
    assert REPORTS["cancellations"].document(SPRING)["totals"]["cancellation_rate"] == 0.0345
    sheet = site.get("/admin/reports/cancellations.csv", SPRING_DAYS).getvalue().decode()
    assert ",0.0345," in sheet


@pytest.mark.parametrize("name", PLAIN)
def test_a_report_is_shown_as_charts_and_tables(site, town, name):
    response = site.get(f"/admin/reports/{name}/", SPRING_DAYS)

    page = response.content.decode()
    assert response.status_code == 200
    assert "Europe/Lisbon" in page
    assert "<figure" in page
    assert "<table" in page
    assert 'value="2026-04-20"' in page
    # The Content-Security-Policy forbids style attributes.
    _before, found, report = page.partition('<div class="reports">')
    assert found
    assert " style=" not in report


@pytest.mark.parametrize("name", PLAIN)
def test_a_report_without_any_booking_is_shown_too(site, name):
    assert site.get(f"/admin/reports/{name}/").status_code == 200


def test_a_report_on_too_many_calendars_says_why_it_is_refused(site, monkeypatch):
    CalendarFactory.create_batch(2)
    monkeypatch.setattr("bookings.reports.figures.MAX_ROWS", 1)
    page = site.get("/admin/reports/utilisation/", SPRING_DAYS).content.decode()
    assert "because there are more calendars" in page


def test_a_long_table_says_how_many_rows_the_page_leaves_out(site, town, monkeypatch):
    monkeypatch.setattr("bookings.reports.pages.MAX_ROWS", 1)
    page = site.get("/admin/reports/revenue/", SPRING_DAYS).content.decode()
    # Both tables are cut: the table by month, and the table by service.
    assert page.count("not shown. The CSV file leaves out nothing.") == 2


@pytest.mark.parametrize("name", PLAIN)
def test_a_report_is_downloaded_as_a_csv_file(site, api, town, name):
    response = site.get(f"/admin/reports/{name}.csv", SPRING_DAYS)

    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert f'filename="{name}-2026-02-10-2026-04-20.csv"' in response["Content-Disposition"]
    path = f"/reports/{name}?from=2026-02-10&to=2026-04-20&tz=Europe/Lisbon"
    same = api.as_(AdminFactory()).get(path, HTTP_ACCEPT="text/csv").content
    assert response.getvalue() == spreadsheets.BYTE_ORDER_MARK.encode() + same


def test_reports_are_linked_from_the_home_page_of_admins(site):
    page = site.get("/admin/").content.decode()

    assert all(f'href="/admin/reports/{name}/"' in page for name in PLAIN)
    assert site.get("/admin/reports/").url == "/admin/reports/utilisation/"


def test_staff_cannot_see_reports(client):
    client.force_login(staff(["bookings.view_booking"]))

    assert "/admin/reports/" not in client.get("/admin/").content.decode()
    for name in PLAIN:
        assert client.get(f"/admin/reports/{name}/").status_code == 403
        assert client.get(f"/admin/reports/{name}.csv").status_code == 403


def test_an_unknown_report_is_not_found_in_the_admin_site(site):
    assert site.get("/admin/reports/profit/").status_code == 404


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({"from": "2026-03-02", "to": "2026-03-01"}, "The end must be after the start."),
        ({"from": "2020-01-01", "to": "2026-01-01"}, "at most 1,098 days"),
        ({"from": "0001-01-01"}, "Must be in the years 1900 to 2999."),
        ({"to": "abc\0"}, "Enter a valid date."),
    ],
)
def test_the_form_says_why_a_period_is_not_valid(site, query, text):
    response = site.get("/admin/reports/revenue/", query)

    assert response.status_code == 400
    assert text in response.content.decode()
    assert site.get("/admin/reports/revenue.csv", query).status_code == 400
