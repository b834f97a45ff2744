"""Lists run prepared queries, whatever their filters, order and page are."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from urllib.parse import quote

import pytest
from django.db import connection
from django.db.models.sql.compiler import SQLCompiler

from accounts.tests.factories import AdminFactory
from bookings.tests.factories import TUESDAY, BookingFactory, SlotFactory, WebhookFactory
from bookit.database import prepared
from bookit.tests import contract
from catalog.tests.factories import CalendarFactory, ServiceFactory
from reviews.models import Review

# For each parameter: its value in the first and in the second request. Both offsets and both pages
# are after the last row, so both requests count the rows, with the same SQL.
PAGES = {"limit": ("1", "1"), "offset": ("9", "10"), "page": ("2", "3")}
# Any two ids; no row has to match them.
IDS = ("{service}", "{booking}")
FROM = ("2026-01-01", "2026-01-02T10:00:00Z")
TO = ("2027-01-01", "2027-01-02T10:00:00Z")
# For each parameter of each list: its value in the first and in the second request. The values of
# some parameters (fixed choices, orders, `limit`) are constants in the SQL, so both requests have
# the same value, or the same statuses in another order.
LISTS = {
    "/services": {
        "q": ("yoga", "massage"),
        "price_min": ("1", "2.50"),
        "price_max": ("100", "20"),
        "active": ("any", "any"),
        "provider_id": IDS,
        "calendar_id": IDS,
        "mode": ("open", "open"),
        "category": ("sport", "barber"),
        "ordering": ("-price,title", "-price,title"),
        **PAGES,
    },
    "/bookings": {
        "status": ("pending,confirmed", "confirmed,pending"),
        "from": FROM,
        "to": TO,
        "service_id": IDS,
        "calendar_id": IDS,
        "user_id": IDS,
        "scope": ("provider", "provider"),
        "ordering": ("-created_at", "-created_at"),
        **PAGES,
    },
    "/slots": {
        "service_id": IDS,
        "calendar_id": IDS,
        "provider_id": IDS,
        "status": ("scheduled", "scheduled"),
        "date": ("2026-12-01", "2026-12-02"),
        "from": FROM,
        "to": TO,
        "available": ("true", "true"),
        "ordering": ("-start_time", "-start_time"),
        **PAGES,
    },
    "/calendars": {"provider_id": IDS, "ordering": ("-name", "-name"), **PAGES},
    "/calendars/{calendar}/time-off": {
        "from": FROM,
        "to": TO,
        "ordering": ("-start_time", "-start_time"),
        **PAGES,
    },
    "/categories": {"ordering": ("-services", "-services"), **PAGES},
    "/providers": {
        "q": ("ada", "grace"),
        "category": ("sport", "barber"),
        "ordering": ("-created_at", "-created_at"),
        **PAGES,
    },
    "/reviews": {
        "service_id": IDS,
        "rating": ("5", "5"),
        "ordering": ("rating", "rating"),
        **PAGES,
    },
    "/users": {
        "q": ("ada", "grace"),
        "role": ("provider", "provider"),
        "active": ("true", "true"),
        "ordering": ("email", "email"),
        **PAGES,
    },
    "/bookings/{booking}/history": PAGES,
    "/me/api-keys": {"ordering": ("-created_at", "-created_at"), **PAGES},
    "/me/sessions": {"ordering": ("-created_at", "-created_at"), **PAGES},
    "/roles": {"ordering": ("-name", "-name"), **PAGES},
    "/services/{service}/reviews": PAGES,
    "/slots/{slot}/waitlist": {"ordering": ("-created_at", "-created_at"), **PAGES},
    "/webhooks": {"ordering": ("-created_at", "-created_at"), **PAGES},
    "/webhooks/{webhook}/deliveries": {
        "status": ("pending", "pending"),
        "ordering": ("created_at", "created_at"),
        **PAGES,
    },
}
# A parameter of a path. In `LISTS`, it has the name of a key of `town`.
PARAMETER = re.compile(r"\{\w+\}")
CASES = [(path, name) for path, parameters in LISTS.items() for name in parameters]
# Parameters that are tested elsewhere, or that do not change which rows a list has.
UNTRIED = {"tz", "expand", "cursor", "available_from", "available_to"}


@pytest.fixture
def written(monkeypatch):
    """Return a list to which every SELECT that the ORM writes is added."""
    statements = []
    as_sql = SQLCompiler.as_sql

    def note(compiler, *args, **kwargs):
        result = as_sql(compiler, *args, **kwargs)
        statements.append(result[0])
        return result

    monkeypatch.setattr(SQLCompiler, "as_sql", note)
    return statements


@pytest.fixture
def town(db):
    """Return, by name, an admin, their calendar, and a service, a booking, a slot and a webhook."""
    admin = AdminFactory()
    calendar = CalendarFactory(provider=admin)
    services = [
        ServiceFactory(calendar=calendar, title=f"Yoga massage {number}", category="Sport")
        for number in range(2)
    ]
    bookings = [
        BookingFactory(user=admin, service=service, start_time=TUESDAY + timedelta(hours=number))
        for number, service in enumerate(services)
    ]
    return {
        "admin": admin,
        "calendar": calendar,
        "service": services[0],
        "booking": bookings[0],
        "slot": SlotFactory(service=services[1], start_time=TUESDAY + timedelta(days=1)),
        "webhook": WebhookFactory(),
    }


def test_every_parameter_of_every_list_is_tried(api):
    """A new list, and a new filter of a list, must be added to `LISTS`.

    `/events` is left out: it is not prepared, because `EventPagination` needs a queryset.
    """
    operations = contract.operations(api.get("/openapi.json").json())
    documented = {}
    for name, operation in operations.items():
        names = {each["name"] for each in operation["parameters"] if each["in"] == "query"}
        if "limit" in names and name != "GET /events":
            documented[PARAMETER.sub("{}", name)] = names - UNTRIED
    assert documented == {f"GET {PARAMETER.sub('{}', path)}": {*LISTS[path]} for path in LISTS}


@pytest.mark.parametrize(("path", "name"), CASES, ids=[f"{path}?{name}" for path, name in CASES])
def test_the_orm_writes_no_additional_sql_for_a_filter_that_was_used_before(
    api, town, written, path, name
):
    api = api.as_(town["admin"])
    ids = {kind: row.pk for kind, row in town.items()}
    first, second = (quote(value.format(**ids), safe=",") for value in LISTS[path][name])
    path = path.format(**ids)
    assert api.get(path).status_code == 200
    written.clear()
    assert api.get(path).status_code == 200
    plain = [*written]
    assert api.get(f"{path}?{name}={first}").status_code == 200
    written.clear()
    assert api.get(f"{path}?{name}={second}").status_code == 200
    assert written == plain


def test_the_orm_writes_sql_for_a_new_combination_of_filters(api, town, written):
    """Control for the test above: `written` notices the statements."""
    prepared._changed.cache_clear()
    assert api.get("/services?price_min=1&mode=open&ordering=-title").status_code == 200
    assert written


@pytest.mark.parametrize("path", ["/bookings", "/users", "/reviews"])
def test_the_orm_writes_no_sql_for_a_later_page_of_a_cursor(api, town, written, path):
    for number in range(1, 5):
        start_time = TUESDAY + timedelta(days=number)
        booking = BookingFactory(user__name=f"Ada {number}", start_time=start_time)
        Review.objects.create(
            booking=booking,
            service=booking.service,
            calendar=booking.calendar,
            user=booking.user,
            rating=5,
        )
    api = api.as_(town["admin"])
    page = api.get(f"{path}?limit=1&cursor=").json()
    page = api.get(page["next"]).json()
    written.clear()
    page = api.get(page["next"]).json()
    assert page["results"]
    assert written == []


@pytest.mark.django_db(transaction=True)
def test_concurrent_requests_with_the_same_filters_get_the_rows_for_their_own_values(api):
    services = [ServiceFactory(title=f"Yoga {n}", price=n, category=f"c{n}") for n in range(40)]

    def found(number):
        try:
            filters = f"price_min={number}&price_max={number}&category=c{number}"
            page = api.get(f"/services?{filters}&ordering=-price").json()
        finally:
            connection.close()
        return [row["title"] for row in page["results"]]

    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            pages = [*pool.map(found, range(len(services)))]
            assert pages == [[service.title] for service in services]


def test_the_number_of_kept_queries_is_bounded(api, town):
    statuses = ["held", "pending", "confirmed", "cancelled", "completed", "expired", "no_show"]
    api = api.as_(town["admin"])
    for combination in range(1, 2 ** len(statuses)):
        chosen = [each for bit, each in enumerate(statuses) if combination >> bit & 1]
        for order in ("start_time", "-created_at"):
            url = f"/bookings?status={','.join(chosen)}&ordering={order}"
            assert api.get(url).status_code == 200
    info = prepared._changed.cache_info()
    assert info.currsize == info.maxsize == prepared.MAX_KEPT
    assert prepared._shaped.cache_info().maxsize == prepared.MAX_KEPT
