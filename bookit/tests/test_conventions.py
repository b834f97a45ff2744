"""Endpoints follow the conventions for ids, times, parameters, pages, methods, bodies and money."""

import gc
import itertools
import json
import re
import weakref
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.core import signing
from django.test import RequestFactory
from django.urls import resolve
from django.utils.timezone import now

from accounts.models import User
from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory
from bookings.models import Booking, Slot
from bookings.tests.factories import TUESDAY, BookingFactory, SlotFactory, WebhookFactory
from bookit.tests.expect import problem
from bookit.tests.routes import api_paths
from catalog.models import Calendar, Service
from catalog.tests.factories import CalendarFactory, ServiceFactory
from reviews.models import Review
from reviews.tests.factories import ReviewFactory

pytestmark = pytest.mark.django_db

ANY_ID = "01980000-0000-7000-8000-000000000000"


@pytest.fixture
def admin(api):
    """Return a client that is signed in as an admin."""
    return api.as_(AdminFactory())


def links(response):
    content = response.json()
    return content["next"], content["previous"]


def walk(client, url, link="next"):
    """Follow the pages that start at `url`, and return the rows of each page."""
    pages = []
    while url:
        response = client.get(url)
        assert response.status_code == 200, response.content
        pages.append(response.json()["results"])
        url = response.json()[link]
        assert len(pages) < 100, "the pages do not end"
    return pages


def joined(pages):
    return list(itertools.chain.from_iterable(pages))


def ids(rows):
    return [row["id"] for row in rows]


# --- request ids ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "x" * 128, "0", "..", "-"])
def test_the_clients_request_id_is_returned(api, name):
    assert api.get("/health", headers={"x-request-id": name})["X-Request-ID"] == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "x" * 129,
        "a b",
        "a\tb",
        "a\r\nSet-Cookie: b=c",
        "a\n",
        "\n",
        '","level":"ERROR"',
        "a/b",
        "é",
        "\u0661",
        "\x00",
        "a,b",
        "<script>",
    ],
)
def test_an_invalid_request_id_is_replaced(client, name):
    returned = client.get("/nothing", headers={"x-request-id": name})["X-Request-ID"]
    assert returned != name
    assert re.fullmatch(r"[0-9a-f-]{36}", returned)
    assert UUID(returned).version == 7


# --- times and zones --------------------------------------------------------------------------


@pytest.fixture
def calendar():
    return CalendarFactory(created_at=datetime(2026, 7, 1, 12, 30, 5, 250000, tzinfo=UTC))


def test_times_are_in_utc_with_a_z_by_default(api, calendar):
    path = f"/calendars/{calendar.pk}"
    assert api.get(path).json()["created_at"] == "2026-07-01T12:30:05.250000Z"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Europe/Paris", "2026-07-01T14:30:05.250000+02:00"),
        ("America/New_York", "2026-07-01T08:30:05.250000-04:00"),
        ("Asia/Kathmandu", "2026-07-01T18:15:05.250000+05:45"),
        ("UTC", "2026-07-01T12:30:05.250000Z"),
        ("Etc/UTC", "2026-07-01T12:30:05.250000Z"),
        ("Zulu", "2026-07-01T12:30:05.250000Z"),
    ],
)
def test_times_are_in_the_requested_zone(api, calendar, name, shown):
    path = f"/calendars/{calendar.pk}"
    assert api.get(path, headers={"time-zone": name}).json()["created_at"] == shown
    assert api.get(path, {"tz": name}).json()["created_at"] == shown
    listed = api.get("/calendars", {"tz": name}).json()["results"][0]["created_at"]
    assert datetime.fromisoformat(listed) == calendar.created_at
    assert listed == shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Asia/Kathmandu", "1910-01-01T05:41:00+05:41"),  # Kathmandu was at +05:41:16.
        ("Africa/Monrovia", "1909-12-31T23:16:00-00:44"),  # Monrovia was at -00:43:08.
    ],
)
def test_the_offsets_of_old_times_have_whole_minutes_too(api, name, shown):
    """Before standard time, zones had offsets with seconds, which RFC 3339 does not allow.

    Offsets are rounded down to whole minutes, so -00:43:08 becomes -00:44.
    """
    calendar = CalendarFactory(created_at=datetime(1910, 1, 1, tzinfo=UTC))
    assert api.get(f"/calendars/{calendar.pk}", {"tz": name}).json()["created_at"] == shown


UTC_PATHS = [
    "/services/{service}/availability?",
    "/services/{service}/availability?explain=true&",
    "/availability?service_id={service}&service_id={class}&",
    "/bookings?expand=service,calendar,slot,user&",
    "/bookings/{booking}?expand=slot&",
    "/bookings/{booking}/history?",
    "/slots?expand=service,calendar&",
    "/slots/{slot}?",
    "/services?",
    "/services/{service}?",
    "/users?",
    "/me?",
    "/me/export?",
]


@pytest.mark.parametrize("path", UTC_PATHS)
def test_every_time_in_utc_ends_in_z(admin, path):
    slot = SlotFactory()
    booked = admin.post("/bookings", {"slot_id": str(slot.pk), "hold": True}).json()
    ids = {
        "service": ServiceFactory().pk,
        "class": slot.service_id,
        "slot": slot.pk,
        "booking": booked["id"],
    }
    path = path.format(**ids)
    for response in (
        admin.get(path.rstrip("?&")),
        admin.get(f"{path}tz=UTC"),
        admin.get(path.rstrip("?&"), headers={"time-zone": "UTC"}),
    ):
        assert response.status_code == 200, response.content
        times = re.findall(rb"\d\dT\d\d:\d\d:\d\d[^\"]*", response.content)
        assert times
        assert all(re.fullmatch(rb"[^Z+]*Z", each) for each in times)
    # Control: in another zone, the times have an offset.
    in_london = admin.get(f"{path}tz=Europe/London").content
    assert re.search(rb"T\d\d:\d\d:\d\d[.\d]*\+0[01]:00", in_london)


def test_winter_and_summer_times_have_different_offsets(api):
    CalendarFactory(name="a", created_at=datetime(2026, 1, 1, tzinfo=UTC))
    CalendarFactory(name="b", created_at=datetime(2026, 7, 1, tzinfo=UTC))
    rows = api.get("/calendars?tz=Europe/Berlin").json()["results"]
    assert [row["created_at"][-6:] for row in rows] == ["+01:00", "+02:00"]


def test_the_tz_parameter_takes_precedence_over_the_header(api, calendar):
    response = api.get(
        f"/calendars/{calendar.pk}?tz=Asia/Tokyo", headers={"time-zone": "Europe/Paris"}
    )
    assert response.json()["created_at"].endswith("+09:00")


def test_a_created_object_is_shown_in_the_requested_zone(admin):
    response = admin.post("/calendars?tz=Asia/Tokyo", {"name": "Chair"})
    assert response.status_code == 201
    assert response.json()["created_at"].endswith("+09:00")


UNKNOWN_ZONES = [
    "Mars/Olympus",
    "europe/paris",
    "+02:00",
    "../../etc/passwd",
    "/etc/localtime",
    "localtime",
    "Factory",
    "Europe",
    "Europe/Paris ",
    "\x00",
    "x" * 1000,
]


@pytest.mark.parametrize("name", UNKNOWN_ZONES)
def test_an_unknown_zone_is_refused(api, name):
    problem(api.get("/services", {"tz": name}), 400, "validation_error", "tz")
    response = api.get("/services", headers={"time-zone": name})
    problem(response, 400, "validation_error", "Time-Zone")


def test_nothing_is_written_if_the_zone_is_unknown(admin):
    problem(admin.post("/calendars?tz=Mars", {"name": "Chair"}), 400, "validation_error", "tz")
    response = admin.post("/calendars", {"name": "Chair"}, headers={"time-zone": "Mars"})
    problem(response, 400, "validation_error", "Time-Zone")
    assert not Calendar.objects.exists()


@pytest.mark.parametrize(
    "text",
    [
        "2999-01-01T10:00:00Z",
        "2999-01-01t10:00:00z",
        "2999-01-01 10:00:00Z",
        "2999-01-01T10:00:00.000Z",
        "2999-01-01T10:00:00.000000000Z",
        "2999-01-01T12:00:00+02:00",
        "2998-12-31T23:30:00-10:30",
        "2999-01-01T10:00:00-00:00",
    ],
)
def test_times_with_an_offset_are_accepted(api, text):
    user = api.as_(UserFactory())
    response = user.post("/bookings", {"service_id": str(ServiceFactory().pk), "start_time": text})
    assert response.status_code == 201, response.content
    assert response.json()["start_time"] == "2999-01-01T10:00:00Z"
    assert Booking.objects.get().start_time == TUESDAY


INVALID_TIMES = [
    "2999-01-01T10:00:00",  # without an offset this is ambiguous
    "2999-01-01",
    "2999-01-01T10:00Z",
    "2999-01-01T10Z",
    "29990101T100000Z",
    "2999-W01-2T10:00:00Z",
    "2999-001T10:00:00Z",
    "2999-01-01T10:00:00 02:00",
    "2999-01-01T10:00:00+02",
    "2999-01-01T10:00:00+0200",
    "2999-01-01T10:00:00+02:00:30",
    "2999-01-01T10:00:00+24:00",
    "2999-01-01T10:00:00+02:60",
    "2999-01-01T10:00:00 Z",
    "2999-01-01T24:00:00Z",
    "2999-01-01T10:60:00Z",
    "2999-01-01T10:00:60Z",
    "2999-02-29T10:00:00Z",
    "2999-13-01T10:00:00Z",
    "2999-00-01T10:00:00Z",
    "0000-01-01T10:00:00Z",
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59-23:59",
    "+12999-01-01T10:00:00Z",
    "-2999-01-01T10:00:00Z",
    "\uff12\uff19\uff19\uff19-01-01T10:00:00Z",
    "2999-01-01T\u0661\u0660:00:00Z",
    "2999-01-01T10:00:00.Z",
    "2999-01-01T10:00:00.0000000000Z",
    "2999-01-01T10:00:00,5Z",
    "2999-01-01T10:00:00Z\n",
    " 2999-01-01T10:00:00Z",
    "2999-01-01T10:00:00UTC",
    "2999-01-01T10:00:00Europe/Paris",
    "2999\u221201\u221201T10:00:00Z",
    "32472180000",
    "tomorrow",
    "",
    "null",
    32472180000,
    1e9,
    True,
    None,
    [],
    ["2999-01-01T10:00:00Z"],
    {},
]


@pytest.mark.parametrize("text", INVALID_TIMES, ids=repr)
def test_an_invalid_time_in_a_body_is_refused(api, text):
    user = api.as_(UserFactory())
    booking = BookingFactory(user=User.objects.get())
    new = {"service_id": str(ServiceFactory().pk), "start_time": text}
    problem(user.post("/bookings", new), 400, "validation_error", "start_time")
    response = user.patch(f"/bookings/{booking.pk}", {"start_time": text})
    problem(response, 400, "validation_error", "start_time")
    assert Booking.objects.get().start_time == TUESDAY


def test_a_repeated_local_time_is_unambiguous_with_its_offset(api):
    """The clocks in Berlin go back on this night, so 02:30 comes twice, an hour apart."""
    user = api.as_(UserFactory())
    service = str(ServiceFactory().pk)
    for offset, hour in (("+02:00", 0), ("+01:00", 1)):
        response = user.post(
            "/bookings?tz=Europe/Berlin",
            {"service_id": service, "start_time": f"2998-10-28T02:30:00{offset}"},
        )
        assert response.status_code == 201, response.content
        assert response.json()["start_time"] == f"2998-10-28T02:30:00{offset}"
        instant = datetime(2998, 10, 28, hour, 30, tzinfo=UTC)
        assert Booking.objects.filter(start_time=instant).exists()


def test_a_period_filter_accepts_dates_and_times(api):
    user = UserFactory()
    client = api.as_(user)
    booking = BookingFactory(user=user)  # from 10:00 to 11:00 UTC
    found = [str(booking.pk)]

    def listed(**query):
        response = client.get("/bookings", query)
        assert response.status_code == 200, response.content
        return ids(response.json()["results"])

    assert listed(**{"from": "2999-01-01", "to": "2999-01-01"}) == found
    assert listed(**{"from": "2999-01-02"}) == []
    assert listed(to="2998-12-31") == []
    assert listed(**{"from": "2999-01-01T10:59:59Z"}) == found
    assert listed(**{"from": "2999-01-01T11:00:00Z"}) == []
    assert listed(to="2999-01-01T10:00:01Z") == found
    assert listed(to="2999-01-01T10:00:00Z") == []
    # In Tokyo, the booking ends on January 1 at 20:00. In Kiritimati, it begins on January 2 at
    # 00:00.
    assert listed(**{"from": "2999-01-02", "tz": "Asia/Tokyo"}) == []
    assert listed(**{"from": "2999-01-02", "tz": "Pacific/Kiritimati"}) == found
    assert listed(to="2999-01-01", tz="Pacific/Kiritimati") == []
    assert listed(to="2999-01-01T20:00:01+10:00") == found


INVALID_DATES_AND_TIMES = [
    text
    for text in INVALID_TIMES
    if isinstance(text, str)
    # A filter accepts a date, and its form strips blanks around the value.
    and text not in ("2999-01-01", "2999-01-01T10:00:00Z\n", " 2999-01-01T10:00:00Z")
] + [
    "2999-02-29",
    "2999-1-1",
    "20990101",
    "0001-01-01",
    "9999-12-31",
    "\uff12\uff19\uff19\uff19-01-01",
]


@pytest.mark.parametrize("text", INVALID_DATES_AND_TIMES, ids=repr)
def test_an_invalid_date_or_time_in_a_filter_is_refused(admin, text):
    problem(admin.get("/bookings", {"from": text}), 400, "validation_error", "from")
    problem(admin.get("/bookings", {"to": text}), 400, "validation_error", "to")


def test_the_error_explains_a_plus_sign_that_was_not_encoded(admin):
    content = problem(
        admin.get("/bookings?from=2999-01-01T10:00:00+02:00"), 400, "validation_error", "from"
    )
    assert "%2B" in content["errors"][0]["message"]
    assert admin.get("/bookings?from=2999-01-01T10:00:00%2B02:00").status_code == 200


# --- parameters -------------------------------------------------------------------------------

LISTS = ["/services", "/calendars", "/slots", "/reviews", "/bookings", "/users"]
SOME_GETS = [
    *LISTS,
    *("/me", "/services/{service}", "/services/{service}/reviews"),
    *("/calendars/{calendar}", "/calendars/{calendar}/time-off", "/webhooks", "/events"),
]


@pytest.fixture
def paths():
    """Return a function that fills the ids of a service and its calendar into a path."""
    service = ServiceFactory()
    return lambda path: path.format(service=service.pk, calendar=service.calendar_id)


@pytest.mark.parametrize("path", SOME_GETS)
def test_an_unknown_parameter_is_refused_and_named(admin, paths, path):
    for name in ("colour", "LIMIT", "q[]", "created_at__gt", "x" * 99):
        content = problem(admin.get(paths(path), {name: "1"}), 400, "validation_error", name)
        assert content["errors"][0]["code"] == "unknown"
        assert "tz" in content["errors"][0]["message"]


def test_nothing_is_written_if_a_parameter_is_unknown(admin):
    response = admin.post("/calendars?dry_run=true", {"name": "Chair"})
    problem(response, 400, "validation_error", "dry_run")
    assert not Calendar.objects.exists()


def test_a_single_object_refuses_the_parameter_limit(admin, paths):
    problem(admin.get(paths("/services/{service}?limit=1")), 400, "validation_error", "limit")


@pytest.mark.parametrize("path", SOME_GETS)
def test_null_characters_in_parameters_are_refused(admin, paths, path):
    problem(admin.get(paths(path) + "?tz=U%00TC"), 400, "validation_error", "tz")
    problem(admin.get(paths(path) + "?a%00b=1"), 400, "validation_error", "ab")


@pytest.mark.parametrize(
    "query",
    [
        "/services?q=a%00b",
        "/services?category=%00",
        "/services?price_min=1%00",
        "/services?provider_id=%00",
        "/users?q=%00",
        "/users?role=admin%00",
        "/bookings?status=%00",
        "/bookings?from=%00",
        "/slots?date=%00",
        "/slots?available=true%00",
        "/reviews?cursor=%00",
        "/reviews?ordering=%00",
        "/reviews?limit=1%00",
    ],
)
def test_null_characters_in_filters_are_refused(admin, query):
    name = query.split("?")[1].split("=")[0]
    problem(admin.get(query), 400, "validation_error", name)


@pytest.mark.parametrize(
    "query",
    [
        "/services?price_min=cheap",
        "/services?price_min=NaN",
        "/services?price_min=sNaN",
        "/services?price_min=Infinity",
        "/services?price_min=1e400",
        "/services?price_min=1e9999999999",
        "/services?price_max=-1",
        "/services?price_max=1.0001",
        "/services?active=yes",
        "/services?active=True",
        "/services?mode=closed",
        "/services?provider_id=5",
        "/services?calendar_id=nonsense",
        "/services?q=" + "x" * 201,
        "/services?category=" + "x" * 101,
        "/services?ordering=colour",
        "/services?ordering=-",
        "/services?ordering=--title",
        "/services?ordering=title,",
        "/services?ordering=calendar__provider__password",
        "/services?ordering=relevance",
        "/services?cursor=",
        "/calendars?provider_id=x",
        "/calendars?cursor=",
        "/users?role=emperor",
        "/users?active=1",
        "/users?ordering=password",
        "/users?q=" + "x" * 201,
        "/bookings?status=paid",
        "/bookings?status=pending,paid",
        "/bookings?scope=everything",
        "/bookings?service_id=x",
        "/bookings?user_id=x",
        "/bookings?ordering=price",
        "/reviews?rating=0",
        "/reviews?rating=6",
        "/reviews?rating=five",
        "/reviews?service_id=x",
        "/reviews?ordering=comment",
        "/events?type=booking.held",
        "/events?type=nonsense",
        "/events?limit=0",
        "/events?cursor=nonsense",
        "/events?offset=1",
        "/events?page=1",
    ],
)
def test_an_invalid_filter_is_refused_and_named(admin, query):
    name = query.split("?")[1].split("=")[0]
    problem(admin.get(query), 400, "validation_error", name)


@pytest.mark.parametrize(
    "query",
    [
        "/services?q=%25",
        "/services?q=_",
        "/services?q='%22%5C",
        "/services?q=%26%7C!():*<->",
        "/services?q=the",
        "/services?q=%F0%9F%92%88",
        "/services?q=" + "x%20" * 100,
        "/services?q=-",
        "/services?q=%22unbalanced",
        "/services?q=%FF",
        "/users?q=%25",
        "/bookings?status=pending,confirmed&status=held",
        "/reviews?cursor=",
    ],
)
def test_unusual_but_valid_parameters_are_accepted(admin, query):
    ServiceFactory(title="The barber's 100% _best_ cut")
    assert admin.get(query).status_code == 200


@pytest.mark.parametrize("path", [*LISTS, "/services/{service}/reviews", "/webhooks", "/events"])
def test_each_empty_parameter_of_a_list_except_the_cursor_is_refused(admin, paths, path):
    path = paths(path)
    [unknown] = admin.get(f"{path}?colour=red").json()["errors"]
    names = {*unknown["message"].partition("accepts: ")[2].rstrip(".").split(", ")}
    assert {"tz", "limit"} <= names
    for name in names - {"cursor"}:
        for value in ("", "%20"):
            problem(admin.get(f"{path}?{name}={value}"), 400, "validation_error", name)


@pytest.mark.parametrize(
    "path",
    [
        *("/services?category=Hair&category=", "/services?q=", "/services?q=&q=x", "/me?tz="),
        f"/services/{ANY_ID}/availability?from=",
    ],
)
def test_an_empty_parameter_is_refused(admin, path):
    [name] = {each.split("=")[0] for each in path.split("?")[1].split("&")}
    content = problem(admin.get(path), 400, "validation_error", name)
    assert "is empty" in content["errors"][0]["message"]


@pytest.mark.parametrize(
    "path",
    [
        f"/bookings?service_id={ANY_ID}&service_id={ANY_ID}",
        "/services?limit=1&limit=2",
        "/services?ordering=title&ordering=price",
        "/users?cursor=&cursor=",
        "/me?tz=Asia/Tokyo&tz=Asia/Tokyo",
        f"/services/{ANY_ID}/availability?from=2026-12-01&from=2026-12-02",
        "/reports/revenue?from=2026-12-01&from=2026-12-02",
    ],
)
def test_a_repeated_parameter_is_refused_if_only_one_value_would_have_an_effect(admin, path):
    [name] = {each.split("=")[0] for each in path.split("?")[1].split("&")}
    content = problem(admin.get(path), 400, "validation_error", name)
    assert "only once" in content["errors"][0]["message"]


def test_parameters_with_several_values_can_be_repeated(admin, paths):
    for path in (
        "/services?category=Hair&category=Yoga",
        "/bookings?expand=service&expand=user",
        "/availability?service_id={service}&service_id={service}",
    ):
        response = admin.get(paths(path))
        assert response.status_code == 200, response.content
    for status in ("pending", "confirmed", "cancelled"):
        BookingFactory(status=status)
    for query in ("status=pending&status=confirmed", "status=confirmed&status=held,pending"):
        found = admin.get(f"/bookings?{query}").json()["results"]
        assert {each["status"] for each in found} == {"pending", "confirmed"}


# --- pages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*LISTS, "/services/{service}/reviews", "/webhooks"])
def test_a_list_has_count_next_previous_and_results(admin, paths, path):
    content = admin.get(paths(path)).json()
    assert list(content) == ["count", "next", "previous", "results"]
    assert content["count"] == len(content["results"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"),
        ("limit", "101"),
        ("limit", "-1"),
        ("limit", "+5"),
        ("limit", "5.0"),
        ("limit", "five"),
        ("limit", " 5"),
        ("limit", "\uff15"),
        ("limit", "9" * 5000),
        ("offset", "-1"),
        ("offset", "x"),
        ("offset", "9" * 30),
        ("page", "0"),
        ("page", "-1"),
        ("page", "x"),
        ("page", "9" * 30),
    ],
)
def test_an_invalid_page_parameter_is_refused(admin, name, value):
    for path in LISTS:
        problem(admin.get(path, {name: value}), 400, "validation_error", name)


def test_two_kinds_of_page_parameters_in_one_request_are_refused(admin):
    problem(admin.get("/users?page=1&offset=1"), 400, "validation_error", "page")
    problem(admin.get("/users?cursor=&offset=1"), 400, "validation_error", "cursor")
    problem(admin.get("/users?cursor=&page=1"), 400, "validation_error", "cursor")


def test_a_page_has_twenty_rows_by_default_and_at_most_a_hundred(api):
    Calendar.objects.bulk_create(Calendar(name=f"{number:03}") for number in range(101))
    first = api.get("/calendars").json()
    assert (len(first["results"]), first["count"]) == (20, 101)
    assert first["previous"] is None
    assert first["next"] == "http://testserver/calendars?offset=20"
    hundred = api.get("/calendars?limit=100").json()
    assert (len(hundred["results"]), hundred["count"]) == (100, 101)
    beyond = api.get("/calendars?offset=500").json()
    assert (beyond["results"], beyond["count"], beyond["next"]) == ([], 101, None)


def test_page_numbers_start_at_one(api):
    Calendar.objects.bulk_create(Calendar(name=f"{number:02}") for number in range(7))
    second = api.get("/calendars?limit=3&page=2").json()
    assert [row["name"] for row in second["results"]] == ["03", "04", "05"]
    assert second["next"] == "http://testserver/calendars?limit=3&page=3"
    assert second["previous"] == "http://testserver/calendars?limit=3&page=1"
    last = api.get(second["next"]).json()
    assert ([row["name"] for row in last["results"]], last["next"]) == (["06"], None)


def test_page_links_keep_the_filters(api):
    for number in range(3):
        ServiceFactory(title=f"Yoga & tea {number}")
    ServiceFactory(title="Haircut")
    first = api.get("/services?q=yoga&limit=2&ordering=-title&tz=Asia/Tokyo").json()
    assert first["count"] == 3
    for part in ("q=yoga", "limit=2", "ordering=-title", "tz=Asia"):
        assert part in first["next"]
    assert [row["title"] for row in api.get(first["next"]).json()["results"]] == ["Yoga & tea 0"]


def make_similar_rows():
    """Create rows of every kind. Most have equal values in the fields that can order lists."""
    at = now()
    users = [UserFactory(name="Ada", created_at=at) for _ in range(6)] + [UserFactory()]
    services = [
        ServiceFactory(
            title="Haircut",
            created_at=at,
            calendar__name="Chair",
            calendar__created_at=at,
            rating_sum=5,
            rating_count=1,
        )
        for _ in range(6)
    ]
    ServiceFactory(rating_sum=4, rating_count=1)
    for service, user in zip(services, users, strict=False):
        booking = BookingFactory(
            service=service, user=user, created_at=at, status=Booking.Status.COMPLETED
        )
        ReviewFactory(booking=booking, created_at=at)
        SlotFactory(service=service, start_time=TUESDAY + timedelta(days=1), created_at=at)
    BookingFactory(start_time=TUESDAY + timedelta(hours=5))
    BookingFactory(start_time=TUESDAY - timedelta(hours=5))


MODELS = {
    "/services": Service,
    "/calendars": Calendar,
    "/slots": Slot,
    "/reviews": Review,
    "/bookings": Booking,
    "/users": User,
}
ORDERINGS = {
    "/services": ["title", "price", "duration_minutes", "rating", "created_at"],
    "/calendars": ["name", "created_at"],
    "/slots": ["start_time", "created_at"],
    "/reviews": ["created_at", "rating"],
    "/bookings": ["start_time", "created_at"],
    "/users": ["created_at", "name", "email"],
}
LISTS_WITH_CURSORS = ["/reviews", "/bookings", "/users"]
ONE_FIELD = [
    (path, sign + name) for path in LISTS for name in ORDERINGS[path] for sign in ("", "-")
]
TWO_FIELDS = [
    ("/services", "-price,title"),
    ("/services", "title,-created_at"),
    ("/bookings", "-start_time,created_at"),
    ("/users", "name,-email"),
    ("/reviews", "rating,-created_at"),
]


@pytest.mark.parametrize(("path", "ordering"), [*ONE_FIELD, *TWO_FIELDS])
def test_pages_neither_overlap_nor_skip_rows_with_equal_values(admin, path, ordering):
    make_similar_rows()
    everything = {str(pk) for pk in MODELS[path].objects.values_list("pk", flat=True)}
    for url in (
        f"{path}?ordering={ordering}&limit=2",
        f"{path}?ordering={ordering}&limit=2&page=1",
    ):
        listed = ids(joined(walk(admin, url)))
        assert len(listed) == len(everything)
        assert set(listed) == everything
    at_once = admin.get(f"{path}?ordering={ordering}&limit=100").json()["results"]
    assert ids(at_once) == listed
    last = admin.get(f"{path}?limit=2&ordering={ordering}&offset={len(listed) - 1}").json()
    assert ids(last["results"]) == listed[-1:]


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("tz", ["", "&tz=Asia/Tokyo"])
def test_pages_in_the_default_order_neither_overlap_nor_skip_rows(admin, path, tz):
    make_similar_rows()
    total = MODELS[path].objects.count()
    expected = ids(admin.get(f"{path}?limit=100{tz}").json()["results"])
    assert len(set(expected)) == len(expected) == total
    for limit in (1, 2, 3):
        for url in (f"{path}?limit={limit}{tz}", f"{path}?limit={limit}&page=1{tz}"):
            assert ids(joined(walk(admin, url))) == expected
    for offset in (0, 1, total - 1, total, total + 5):
        page = admin.get(f"{path}?offset={offset}&limit=4{tz}").json()
        assert ids(page["results"]) == expected[offset : offset + 4]
        assert page["count"] == total


def test_pages_of_a_users_own_bookings_neither_overlap_nor_skip_rows(api):
    user = UserFactory()
    for _ in range(5):
        BookingFactory(user=user)  # all at the same time
        BookingFactory()
    client = api.as_(user)
    expected = ids(client.get("/bookings").json()["results"])
    assert set(expected) == {str(booking.pk) for booking in Booking.objects.filter(user=user)}
    for url in ("/bookings?limit=2", "/bookings?limit=2&page=1", "/bookings?limit=2&cursor="):
        assert ids(joined(walk(client, url))) == expected
    page = client.get("/bookings?limit=2&offset=3&tz=Asia/Tokyo").json()
    assert (ids(page["results"]), page["count"]) == (expected[3:5], 5)


@pytest.mark.parametrize("path", LISTS)
def test_a_row_of_a_list_equals_the_single_object(admin, path):
    make_similar_rows()
    for tz in ("", "?tz=Asia/Kathmandu"):
        rows = admin.get(path + tz).json()["results"]
        assert rows
        for row in rows:
            assert admin.get(f"{path}/{row['id']}{tz}").json() == row


def opposite_ordering(ordering):
    return ",".join(
        name[1:] if name.startswith("-") else f"-{name}" for name in ordering.split(",")
    )


@pytest.mark.parametrize(("path", "ordering"), [*ONE_FIELD, *TWO_FIELDS])
def test_a_list_in_the_opposite_order_is_the_list_reversed(admin, path, ordering):
    make_similar_rows()
    listed, opposite = (
        admin.get(f"{path}?limit=100&ordering={each}").json()["results"]
        for each in (ordering, opposite_ordering(ordering))
    )
    if path == "/services" and "rating" in ordering:  # Unrated services always come last.
        listed, opposite = (
            [row for row in rows if row["rating_average"]] for rows in (listed, opposite)
        )
        assert len(listed) == 7
    assert ids(listed) == ids(opposite)[::-1]
    # No other row lacks a value. It would come last in both lists, as unrated services do.
    for row in listed:
        for name in ordering.replace("-", "").split(","):
            assert row.get(name, "") is not None


@pytest.mark.parametrize(
    ("path", "ordering"),
    [(path, order) for path, order in [*ONE_FIELD, *TWO_FIELDS] if path in LISTS_WITH_CURSORS],
)
def test_cursors_read_every_row_once_forwards_and_backwards(admin, path, ordering):
    make_similar_rows()
    expected = ids(admin.get(f"{path}?limit=100&ordering={ordering}").json()["results"])
    for limit in (1, 2, 3, 100):
        pages, url = [], f"{path}?cursor=&limit={limit}&ordering={ordering}"
        first, last = url, None
        while url:
            response = admin.get(url)
            assert list(response.json()) == ["next", "previous", "results"]
            pages.append(ids(response.json()["results"]))
            last, url = url, links(response)[0]
        assert joined(pages) == expected
        assert links(admin.get(first))[1] is None
        back, url = [pages[-1]], links(admin.get(last))[1]
        while url:
            response = admin.get(url)
            back.insert(0, ids(response.json()["results"]))
            url = links(response)[1]
        assert joined(back) == expected


def test_a_cursor_neither_skips_nor_repeats_rows_when_other_rows_change(admin):
    users = [UserFactory(email=f"{number}@example.com") for number in range(6)]
    first = admin.get("/users?cursor=&limit=3&ordering=email&role=user").json()
    seen = ids(first["results"])
    User.objects.filter(pk__in=seen[:2]).delete()  # An offset would now skip two rows.
    for number in range(5):
        UserFactory(email=f"0{number}@example.com")  # An offset would now repeat some rows.
    rest = ids(joined(walk(admin, first["next"])))
    assert not set(seen) & set(rest)
    assert set(seen) | set(rest) >= {str(user.pk) for user in users}


def test_a_cursor_works_after_the_last_row_of_its_page_is_deleted(admin):
    for _ in range(4):
        UserFactory()
    first = admin.get("/users?cursor=&limit=2&ordering=email&role=user").json()
    User.objects.filter(pk=first["results"][1]["id"]).delete()
    assert len(joined(walk(admin, first["next"]))) == 2


def test_an_empty_list_has_one_empty_page(admin):
    empty = admin.get("/bookings?cursor=").json()
    assert empty == {"next": None, "previous": None, "results": []}


def forged(*content):
    """Return a cursor that is signed with the right key, but not as a cursor."""
    return signing.Signer(salt="something else").sign_object(content)


FORGED = [
    "x",
    ":",
    "a:b",
    "x" * 5000,
    "bz0xMA==",  # a cursor in DRF's own format
    "eyJhIjoxfQ:nonsense",
    "\u00e9:\u00e9",
    forged(False, ["created_at", "id"], f'["2026-01-01T00:00:00Z","{ANY_ID}"]'),
    "%00",
]


@pytest.mark.parametrize("cursor", FORGED)
def test_a_cursor_that_was_not_issued_by_the_api_is_refused(admin, cursor):
    for path in LISTS_WITH_CURSORS:
        refused = problem(admin.get(path, {"cursor": cursor}), 400, "validation_error", "cursor")
        assert "was not issued by this API" in refused["errors"][0]["message"]


def test_a_modified_cursor_is_refused(admin):
    UserFactory()
    link = admin.get("/users?cursor=&limit=1").json()["next"]
    cursor = re.search(r"cursor=([^&]+)", link)[1].replace("%3A", ":")
    assert admin.get("/users", {"cursor": cursor, "limit": 1}).status_code == 200
    for position in range(0, len(cursor), 7):
        changed = cursor[:position] + ("A" if cursor[position] != "A" else "B")
        changed += cursor[position + 1 :]
        response = admin.get("/users", {"cursor": changed, "limit": 1})
        refused = problem(response, 400, "validation_error", "cursor")
        assert "was not issued by this API" in refused["errors"][0]["message"]


def test_a_cursor_of_another_ordering_is_refused(admin):
    UserFactory()
    link = admin.get("/users?cursor=&limit=1&ordering=name").json()["next"]
    other = link.replace("ordering=name", "ordering=email")
    assert other != link
    refused = problem(admin.get(other), 400, "validation_error", "cursor")
    assert "a different ordering" in refused["errors"][0]["message"]


def test_an_admins_cursor_shows_a_user_only_their_own_rows(api):
    BookingFactory()
    BookingFactory(start_time=TUESDAY + timedelta(hours=1))
    user = UserFactory()
    own = BookingFactory(user=user, start_time=TUESDAY + timedelta(hours=2))
    admin = api.as_(AdminFactory())
    link = admin.get("/bookings?cursor=&limit=1&ordering=start_time").json()["next"]
    assert len(joined(walk(admin, link))) == 2
    response = api.as_(user).get(link)
    assert response.status_code == 200
    assert ids(response.json()["results"]) == [str(own.pk)]


# --- methods ----------------------------------------------------------------------------------


def test_put_is_not_allowed_for_any_user(api):
    for client in (api, api.as_(UserFactory()), api.as_(AdminFactory())):
        for path in api_paths():
            response = client.put(path, {"name": "x"})
            problem(response, 405, "method_not_allowed")
            assert "PUT" not in response["Allow"]


@pytest.mark.parametrize("path", SOME_GETS)
def test_head_returns_the_headers_of_get_without_a_body(admin, paths, path):
    get, head = admin.get(paths(path)), admin.head(paths(path))
    assert (head.status_code, head.content) == (200, b"")
    assert head["Content-Type"] == get["Content-Type"]
    assert head["Content-Length"] == get["Content-Length"] == str(len(get.content))


# Before a cross-origin request, browsers send a preflight with the same query, but without a token.
QUERIES = ["", "?service_id=x&from=tomorrow", "?limit=0&cursor=x&tz=Mars", "?x=" + "&x=" * 2000]


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("path", api_paths())
def test_a_preflight_lists_the_methods_for_any_query(api, path, query):
    response = api.options(path + query)
    assert (response.status_code, response.content) == (204, b"")
    methods = {"OPTIONS"} | {method.upper() for method in resolve(path).func.actions}
    if "GET" in methods:
        methods.add("HEAD")
    assert {*response["Allow"].split(", ")} == methods


@pytest.mark.parametrize("token", ["", "Bearer x", "an admin's"])
def test_a_preflight_takes_no_database_query_for_any_user(api, token, django_assert_num_queries):
    client = api.as_(AdminFactory()) if token == "an admin's" else api
    headers = {"authorization": token} if token.startswith("Bearer") else {}
    with django_assert_num_queries(0):
        for path in api_paths():
            assert client.options(f"{path}?q=x", headers=headers).status_code == 204


@pytest.mark.parametrize("method", ["TRACE", "PUT", "BREW", "LIST", "METADATA"])
@pytest.mark.parametrize("query", QUERIES)
def test_a_wrong_method_with_any_query_is_not_allowed(api, method, query):
    for path in api_paths():
        problem(api.generic(method, path + query), 405, "method_not_allowed")


@pytest.mark.parametrize("path", api_paths())
def test_head_checks_parameters_as_get_does(admin, path):
    for query in ("?limit=0", "?service_id=x&from=tomorrow", "?nonsense=x", "?tz=Mars"):
        get, head = admin.get(path + query), admin.head(path + query)
        assert (head.status_code, head.content) == (get.status_code, b"")


# --- bodies -----------------------------------------------------------------------------------


def test_a_created_object_has_a_location(admin):
    calendar = admin.post("/calendars", {"name": "Chair"})
    service = admin.post("/services", {"title": "Cut", "price": "25", "duration_minutes": 30})
    booking = admin.post(
        "/bookings",
        {"service_id": service.json()["id"], "start_time": "2999-01-01T10:00:00Z"},
    )
    admin.patch(f"/bookings/{booking.json()['id']}/status", {"status": "completed"})
    review = admin.post("/reviews", {"booking_id": booking.json()["id"], "rating": 5})
    changed = {"status", "updated_at", "rating_average", "rating_count"}
    for made in (calendar, service, booking, review):
        assert made.status_code == 201, made.content
        assert made["Location"].endswith(f"/{made.json()['id']}")
        found = admin.get(made["Location"]).json()
        # The response for a new service contains its calendar too.
        assert found.keys() == made.json().keys() - {"calendar"}
        for name in found.keys() - changed:
            assert found[name] == made.json()[name], name


def test_delete_returns_an_empty_response(admin):
    calendar = CalendarFactory()
    response = admin.delete(f"/calendars/{calendar.pk}")
    assert (response.status_code, response.content) == (204, b"")
    assert "Content-Type" not in response
    problem(admin.delete(f"/calendars/{calendar.pk}"), 404, "not_found")


def test_ids_are_version_seven_uuids(admin):
    made = admin.post("/calendars", {"name": "Chair"}).json()
    assert UUID(made["id"]).version == 7
    assert made["id"] == str(UUID(made["id"]))
    assert [User.objects.get().pk.version, UserFactory().pk.version] == [7, 7]


@pytest.mark.parametrize("write", [str.upper, str.title, lambda text: text])
def test_ids_in_paths_may_be_upper_or_lower_case(admin, write):
    review = ReviewFactory()
    for kind, row in (
        ("services", review.service),
        ("calendars", review.service.calendar),
        ("bookings", review.booking),
        ("reviews", review),
        ("users", review.user),
    ):
        response = admin.get(f"/{kind}/{write(str(row.pk))}")
        assert response.status_code == 200, kind
        assert response.json()["id"] == str(row.pk)


def test_ids_in_bodies_and_filters_may_be_upper_case(admin):
    service = ServiceFactory()
    upper_case = str(service.pk).upper()
    new = {"service_id": upper_case, "start_time": "2999-01-01T10:00:00Z"}
    assert admin.post("/bookings", new).status_code == 201
    assert admin.get(f"/bookings?service_id={upper_case}").json()["count"] == 1


INVALID_IDS = [
    "1",
    "-1",
    "me",
    "01980000000070008000000000000000",
    "{01980000-0000-7000-8000-000000000000}",
    "01980000-0000-7000-8000-00000000000",
    "01980000-0000-7000-8000-0000000000000",
    "g1980000-0000-7000-8000-000000000000",
    "01980000-0000-7000-8000-00000000000\uff10",
    "01980000-0000-7000-8000-00000000000%0A",
    "01980000-0000-7000-8000-000000000000%0A",
    "01980000-0000-7000-8000-000000000000%00",
    "%20",
    "'; DROP TABLE accounts_user; --",
    "x" * 3000,
]


@pytest.mark.parametrize("name", INVALID_IDS)
def test_an_invalid_id_is_not_found(admin, name):
    for kind in ("services", "calendars", "reviews", "bookings", "users"):
        problem(admin.get(f"/{kind}/{name}"), 404, "not_found")
        problem(admin.patch(f"/{kind}/{name}", {}), 404, "not_found")


# Write requests with a valid body.
VALID = {
    "POST /auth/register": {
        "name": "Ada",
        "email": "ada@example.com",
        "password": "correct horse battery",
    },
    "POST /calendars": {"name": "Chair"},
    "POST /calendars/{calendar}/time-off": {
        "start_time": "2999-08-01T00:00:00Z",
        "end_time": "2999-09-01T00:00:00Z",
    },
    "POST /services": {"title": "Cut", "price": "25.00", "duration_minutes": 30},
    "POST /bookings": {"service_id": "{service}", "start_time": "2999-01-01T10:00:00Z"},
    "PATCH /me": {"name": "Ada"},
    "PATCH /users/{user}": {"name": "Ada"},
    "PATCH /calendars/{calendar}": {"name": "Chair"},
    "PATCH /services/{service}": {"title": "Cut"},
    "PATCH /bookings/{booking}": {"status": "cancelled"},
    "PATCH /bookings/{booking}/status": {"status": "confirmed"},
    "PATCH /reviews/{review}": {"rating": 4},
    "POST /webhooks": {"url": "https://8.8.8.8/hook", "events": ["booking.created"]},
    "PATCH /webhooks/{webhook}": {"events": ["booking.created"]},
}


@pytest.fixture
def world():
    """Create what VALID refers to; return the ids by name, and the admin as `admin`."""
    review = ReviewFactory(
        user=AdminFactory(),
        booking__start_time=TUESDAY - timedelta(days=1),
        booking__status=Booking.Status.COMPLETED,
        booking__service__rating_sum=5,
        booking__service__rating_count=1,
    )
    booking = BookingFactory(user=review.user)
    return {
        "admin": review.user,
        "user": UserFactory().pk,
        "service": review.service_id,
        "calendar": review.service.calendar_id,
        "booking": booking.pk,
        "review": review.pk,
        "webhook": WebhookFactory().pk,
    }


def fill(text, world):
    return re.sub(r"\{(\w+)\}", lambda match: str(world[match[1]]), text)


def send(client, request, body, world):
    method, path = fill(request, world).split()
    return client.generic(
        method, path, fill(json.dumps(body), world), content_type="application/json"
    )


@pytest.mark.parametrize("request_line", VALID)
def test_an_unknown_field_is_refused(api, world, request_line):
    client = api.as_(world["admin"])
    good = VALID[request_line]
    for name in ("colour", "Name", "is_superuser", "password_hash", "x" * 90):
        response = send(client, request_line, {**good, name: True}, world)
        content = problem(response, 400, "validation_error", name)
        assert content["errors"][0]["code"] == "unknown"
    assert send(client, request_line, good, world).status_code in (200, 201)


# The path `/bookings/{booking}/status` does not allow GET.
CHANGES = [line for line in VALID if line.startswith("PATCH") and not line.endswith("/status")]


@pytest.mark.parametrize("request_line", CHANGES)
def test_a_client_can_send_back_an_object_that_it_has_read(api, world, request_line):
    client = api.as_(world["admin"])
    path = fill(request_line.split()[1], world)
    for zone in ("UTC", "Asia/Kathmandu"):
        before = client.get(path, {"tz": zone}).json()
        response = client.patch(path, before)
        assert response.status_code == 200, response.content
        after = client.get(path, {"tz": zone}).json()
        before.pop("updated_at", None)
        after.pop("updated_at", None)
        assert after == before


READ_ONLY = {
    "POST /auth/register": {
        "role": "admin",
        "is_active": False,
        "created_at": "2000-01-01T00:00:00Z",
        "id": ANY_ID,
    },
    "POST /calendars": {"id": ANY_ID, "created_at": "2000-01-01T00:00:00Z"},
    "POST /calendars/{calendar}/time-off": {
        "id": ANY_ID,
        "calendar_id": ANY_ID,
        "created_at": "2000-01-01T00:00:00Z",
        "affected_bookings": {"count": 5, "ids": []},
    },
    "POST /services": {
        "id": ANY_ID,
        "rating_average": 5,
        "rating_count": 9,
        "created_at": "2000-01-01T00:00:00Z",
        "provider_id": ANY_ID,
    },
    "POST /bookings": {
        "id": ANY_ID,
        "status": "completed",
        "price": "0.01",
        "seat": 99,
        "currency": "XXX",
        "created_at": "2000-01-01T00:00:00Z",
        "calendar_id": ANY_ID,
        "hold_expires_at": "2999-01-01T00:00:00Z",
    },
    "PATCH /me": {"role": "user", "is_active": False, "id": ANY_ID},
    "PATCH /users/{user}": {"email": "root@example.com", "timezone": "Asia/Tokyo", "id": ANY_ID},
    "PATCH /calendars/{calendar}": {
        "id": ANY_ID,
        "created_at": "2000-01-01T00:00:00Z",
        "affected_bookings": {"count": 5, "ids": []},
    },
    "PATCH /services/{service}": {"rating_count": 99, "rating_average": 1, "provider_id": ANY_ID},
    "PATCH /bookings/{booking}": {
        "price": "0.01",
        "user_id": ANY_ID,
        "seat": 7,
        "cancellation_reason": "!",
    },
    "PATCH /reviews/{review}": {"user_id": ANY_ID, "booking_id": ANY_ID, "author_name": "!"},
    "POST /webhooks": {"id": ANY_ID, "failing_since": "2000-01-01T00:00:00Z"},
    "PATCH /webhooks/{webhook}": {"id": ANY_ID, "disabled_reason": "!", "created_at": None},
}


@pytest.mark.parametrize("request_line", READ_ONLY)
def test_read_only_fields_are_ignored(api, world, request_line):
    client = api.as_(world["admin"])
    sent = READ_ONLY[request_line]
    response = send(client, request_line, {**VALID[request_line], **sent}, world)
    assert response.status_code in (200, 201), response.content
    shown = response.json()
    for name, value in sent.items():
        assert shown[name] != value, name


def test_a_patch_without_a_body_changes_nothing(api, world):
    client = api.as_(world["admin"])
    for line in CHANGES:
        path = fill(line.split()[1], world)
        before = client.get(path).json()
        for response in (client.patch(path, {}), client.generic("PATCH", path)):
            assert before.items() <= response.json().items()
        assert client.get(path).json() == before


# --- money ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("25", "25.00"),
        ("25.5", "25.50"),
        (25, "25.00"),
        (25.5, "25.50"),
        ("0", "0.00"),
        ("-0", "0.00"),
        (-0.0, "0.00"),
        ("1e2", "100.00"),
        ("999999999999.99", "999999999999.99"),
        ("00025.00", "25.00"),
    ],
)
def test_a_price_is_a_decimal_string_with_two_places(api, sent, shown):
    provider = api.as_(ProviderFactory())
    made = provider.post("/services", {"title": "Cut", "price": sent, "duration_minutes": 30})
    assert made.status_code == 201, made.content
    assert made.json()["price"] == shown
    assert made.json()["currency"] == "USD"
    assert provider.get(made["Location"]).json()["price"] == shown
    assert provider.get("/services").json()["results"][0]["price"] == shown


@pytest.mark.parametrize(
    "sent",
    ["", "free", "-0.01", "25.001", "1000000000000", "NaN", "sNaN", "Infinity", "1e999999999",
     "25,00", "0x19", "25.00 USD", True, None, [], {}, "1" * 1001, "\x00"],
    ids=repr,
)  # fmt: skip
def test_an_invalid_price_is_refused(api, sent):
    provider = api.as_(ProviderFactory())
    response = provider.post("/services", {"title": "Cut", "price": sent, "duration_minutes": 30})
    problem(response, 400, "validation_error", "price")
    assert not Service.objects.exists()


@pytest.mark.parametrize("code", ["usd", "US", "USDX", "U$D", "", " USD", "\uff35\uff33\uff24", 5])
def test_a_currency_must_be_three_capital_letters(api, code):
    response = api.as_(ProviderFactory()).post(
        "/services",
        {"title": "Cut", "price": "1", "duration_minutes": 30, "currency": code},
    )
    if code == " USD":
        assert response.json()["currency"] == "USD"  # Blanks around strings are stripped.
    else:
        problem(response, 400, "validation_error", "currency")


# --- memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/services", f"/services/{ANY_ID}"])
def test_a_response_is_freed_with_its_last_reference(path):
    """A reference cycle would keep the response in memory until the next garbage collection."""
    request = RequestFactory().get(path)
    match = resolve(path)
    gc.collect()
    gc.disable()
    try:
        response = match.func(request, *match.args, **match.kwargs)
        assert response.content
        gone = weakref.ref(response)
        del response
        assert gone() is None
    finally:
        gc.enable()
