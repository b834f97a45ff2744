"""A request takes a fixed number of queries, however many rows there are."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.sessions.services import Client, record_admin_login
from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory, staff
from bookings.models import Booking
from bookings.tests.factories import TUESDAY, BookingFactory, SlotFactory
from bookit.tests.expect import problem
from catalog.models import OpeningHours
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.one_server("counts statements, and a cluster needs more of them"),
]

FEW, MANY = 2, 50


@pytest.fixture
def people():
    return {
        "user": UserFactory(),
        "provider": ProviderFactory(),
        "admin": AdminFactory(),
        "staff": staff(["bookings.view_booking"]),
    }


def grow(people, rows):
    """Add bookings by `user` until there are `rows`, each of its own service and calendar.

    Also add opening hours, a user and a session of `user` for each booking, so that all lists grow.
    """
    for number in range(Booking.objects.count(), rows):
        calendar = CalendarFactory(provider=people["provider"])
        for weekday in range(7):
            OpeningHours.objects.create(calendar=calendar, weekday=weekday, opens=0, closes=1439)
        service = ServiceFactory(calendar=calendar, title=f"Yoga {number}", category="Yoga")
        BookingFactory(
            service=service,
            user=people["user"],
            start_time=TUESDAY + timedelta(hours=number),
        )
        UserFactory()
        lifetime = timedelta(hours=1)
        record_admin_login(
            user=people["user"], client=Client(), lifetime=lifetime, at=timezone.now()
        )


def queries(client, path, method="get", *body, status=200):
    """Return the SQL statements that a request runs."""
    with CaptureQueriesContext(connection) as captured:
        response = getattr(client, method)(path, *body)
    assert response.status_code == status, response.content
    return [query["sql"] for query in captured.captured_queries]


# The user, the list and the expected number of queries. With a token, one query reads the account.
# If the user has staff roles, another query reads their permissions.
LISTS = [
    ("anonymous", "/services", 1),
    ("anonymous", "/services?active=any", 1),
    ("anonymous", "/services?q=yoga", 2),
    ("anonymous", "/services?ordering=-rating&price_min=1&category=yoga", 1),
    ("user", "/services", 2),
    ("anonymous", "/calendars", 1),
    ("provider", "/services", 2),
    ("admin", "/services", 2),
    ("anonymous", "/calendars?ordering=-created_at", 1),
    ("user", "/bookings", 2),
    ("user", "/bookings?status=pending&from=2999-01-01&to=2999-12-31", 2),
    ("user", "/bookings?ordering=-created_at", 2),
    ("user", "/bookings?cursor=", 2),
    ("provider", "/bookings?scope=provider", 2),
    ("admin", "/bookings", 2),
    ("admin", "/bookings?cursor=", 2),
    ("admin", "/users", 2),
    ("admin", "/users?q=person&role=user", 2),
    ("admin", "/users?cursor=", 2),
    ("user", "/me/sessions", 2),
    ("staff", "/bookings", 3),
]


@pytest.mark.parametrize(("who", "path", "expected"), LISTS, ids=[f"{a} {b}" for a, b, _ in LISTS])
def test_a_list_takes_the_same_number_of_queries_for_few_and_many_rows(
    api, people, who, path, expected
):
    client = api if who == "anonymous" else api.as_(people[who])
    one_page = f"{path}{'&' if '?' in path else '?'}limit=100"
    grow(people, FEW)
    few = queries(client, one_page)
    grow(people, MANY)
    many = queries(client, one_page)
    assert (len(few), len(many)) == (expected, expected), many
    # If a list is longer than its page, one more query counts the rows. Lists with a cursor are not
    # counted, and a search for services has already counted its results.
    counted = 0 if "cursor=" in path or "q=yoga" in path else 1
    page = queries(client, path)
    assert len(page) == expected + counted, page


DETAILS = [
    ("anonymous", "/services/{service}", 1),
    ("user", "/services/{service}", 2),
    ("anonymous", "/calendars/{calendar}", 1),
    ("user", "/bookings/{booking}", 2),
    ("provider", "/bookings/{booking}", 2),
    ("admin", "/bookings/{booking}", 2),
    ("user", "/me", 1),
    ("admin", "/users/{user}", 2),
]


@pytest.mark.parametrize(
    ("who", "path", "expected"), DETAILS, ids=[f"{a} {b}" for a, b, _ in DETAILS]
)
def test_one_resource_takes_at_most_one_query_besides_the_account(api, people, who, path, expected):
    grow(people, FEW)
    booking = Booking.objects.first()
    path = path.format(
        service=booking.service_id,
        calendar=booking.calendar_id,
        booking=booking.pk,
        user=people["user"].pk,
    )
    found = queries(api if who == "anonymous" else api.as_(people[who]), path)
    assert len(found) == expected, found


def body(service, hours):
    start_time = TUESDAY + timedelta(hours=hours)
    return {"service_id": str(service.pk), "start_time": start_time.isoformat()}


# Inside the transaction of an ordinary test, a booking would also need queries for a savepoint.
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("rows", [FEW, MANY])
def test_a_booking_takes_three_queries(api, people, rows):
    service = ServiceFactory(capacity=MANY)
    for seat in range(1, rows):
        BookingFactory(service=service, seat=seat, user=people["user"])
    client = api.as_(people["user"])
    # Two queries read the account and the service. One statement then finds a seat, books it and
    # records an event.
    made = queries(client, "/bookings", "post", body(service, 0), status=201)
    assert len(made) == 3, made
    assert made[-1].count("INSERT INTO") == 2


# Inside the transaction of an ordinary test, a booking would also need queries for a savepoint.
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("rows", [FEW, MANY])
def test_a_refused_booking_takes_one_more_query_for_alternatives(api, people, rows):
    service = ServiceFactory()
    for hours in range(rows):
        BookingFactory(service=service, start_time=TUESDAY + timedelta(hours=hours))
    client = api.as_(people["user"])
    refused = queries(client, "/bookings", "post", body(service, 0), status=409)
    assert len(refused) == 4, refused


def test_an_invalid_request_queries_at_most_the_account(api, people):
    client = api.as_(people["user"])
    assert len(queries(client, "/bookings", "post", {"service_id": "x"}, status=400)) == 1
    assert queries(api, "/bookings", "post", {}, status=401) == []
    assert queries(api, "/services?limit=x", status=400) == []


def test_an_invalid_token_takes_no_query(api):
    api.credentials(HTTP_AUTHORIZATION="Bearer nonsense")
    with CaptureQueriesContext(connection) as captured:
        problem(api.get("/bookings"), 401, "token_invalid")
    assert len(captured) == 0


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        # Read the account and the booking. Look up the calendar, lock it and the booking, read the
        # terms, find a seat, move the booking, and write the event. Begin and release two
        # savepoints.
        ({"start_time": "2999-06-01T10:00:00Z"}, 13),
        # Read the account and the booking. Look up the calendar, lock the booking, change it, and
        # write the event. Begin and release a savepoint.
        ({"status": "cancelled"}, 8),
    ],
)
def test_a_change_takes_a_fixed_number_of_queries(api, people, change, expected):
    for rows in (FEW, MANY):
        grow(people, rows)
        booking = Booking.objects.filter(status="pending").last()
        found = queries(api.as_(people["user"]), f"/bookings/{booking.pk}", "patch", change)
        assert len(found) == expected, found
        Booking.objects.filter(pk=booking.pk).delete()


FREQUENT = {
    "a service": ("get", "/services/{service}"),
    "services": ("get", "/services"),
    "own bookings": ("get", "/bookings"),
    "a booking": ("post", "/bookings"),
    "a seat in a slot": ("post", "/bookings"),
}
# Inserts hourly bookings of one service, but not the rows that triggers would add for them. ALTER
# TABLE is refused while deferred constraints still have to be checked.
CROWD = """
SET CONSTRAINTS ALL IMMEDIATE;
ALTER TABLE bookings_booking DISABLE TRIGGER USER;
INSERT INTO bookings_booking (id, user_id, service_id, calendar_id, seat, start_time, end_time,
    blocked, status, attendee_name, attendee_email, notes, price, currency, created_at, updated_at)
SELECT gen_random_uuid(), user_id, service_id, calendar_id, 1, starts, ends,
    tstzrange(starts, ends), 'confirmed', '', '', '', price, currency, now(), now()
FROM (SELECT * FROM bookings_booking LIMIT 1) AS booking, LATERAL (
    SELECT end_time - n * interval '1 h' AS starts, end_time - n * interval '1 h' + '30 min' AS ends
    FROM generate_series(50, 3000) AS n
) AS hours;
SET CONSTRAINTS ALL IMMEDIATE;
ALTER TABLE bookings_booking ENABLE TRIGGER USER;
SET CONSTRAINTS ALL DEFERRED;
ANALYZE;
"""


@pytest.mark.parametrize("has_crowd", [False, True])
@pytest.mark.parametrize("name", FREQUENT)
def test_frequent_statements_are_not_planned_again_on_each_execution(api, people, name, has_crowd):
    # PostgreSQL plans a prepared statement again on each execution as long as it estimates that a
    # generic plan costs more. Planning these statements takes longer than running them. The
    # estimate depends on the table statistics. The first five executions are always planned.
    grow(people, FEW)
    if has_crowd:
        connection.cursor().execute(CROWD)
    service = Booking.objects.first().service
    method, path = FREQUENT[name]
    days = range(20, 40) if name == "a seat in a slot" else ()
    slots = [
        {"slot_id": str(SlotFactory(service=service, start_time=TUESDAY + timedelta(days=day)).pk)}
        for day in days
    ]
    connection.connection.execute("DEALLOCATE ALL")
    connection.connection._prepared.clear()
    for number in range(20):
        # The calendar closes at 23:59. After 112 hours, it is 02:00, so all 20 hours are open.
        content = [body(service, 112 + number)] if method == "post" else []
        if name == "a seat in a slot":
            content = [slots[number]]
        response = getattr(api.as_(people["user"]), method)(
            path.format(service=service.pk), *content
        )
        assert response.status_code in (200, 201), response.content
    planned = connection.connection.execute(
        "SELECT statement, generic_plans, custom_plans FROM pg_prepared_statements"
    ).fetchall()
    frequent = [
        (statement, custom) for statement, generic, custom in planned if generic + custom > 10
    ]
    assert frequent
    assert [(statement, custom) for statement, custom in frequent if custom > 5] == []
