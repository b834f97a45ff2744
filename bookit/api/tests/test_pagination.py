"""The deepest page of a list, the error beyond it, and the limit of counts."""

from time import monotonic

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import User
from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory
from bookings.models import Booking
from bookings.tests.factories import BookingFactory
from bookit.api.pagination import DEFAULT_LIMIT, MAX_OFFSET
from bookit.database import counts
from bookit.database.counts import MAX_COUNTED
from bookit.tests import contract
from bookit.tests.expect import problem
from catalog.listing import MAX_FOUND
from catalog.models import Calendar

pytestmark = pytest.mark.django_db

WITH_CURSOR = ["/bookings", "/users", "/reviews", "/services/{service}/reviews"]
# For some lists without cursors: a part of the message that refuses a page that is too deep.
WITHOUT_CURSOR = {
    "/services": "filter the list by q, price_min",
    "/calendars": "filter the list by provider_id",
    "/slots": "filter the list by service_id",
    "/calendars/{calendar}/time-off": "filter the list by from, to",
    "/webhooks": "reverse the ordering",
    "/bookings/{booking}/history": "Only the first",
}
DEEPEST_PAGE = MAX_OFFSET // DEFAULT_LIMIT + 1
# 10**11 has twelve digits. A longer number gets another error.
TOO_DEEP = [("offset", MAX_OFFSET + 1), ("offset", 10**11), ("page", DEEPEST_PAGE + 1)]


@pytest.fixture
def admin(api):
    """Return the client of an admin."""
    return api.as_(AdminFactory())


@pytest.fixture
def paths():
    """Return a function that fills the ids of existing rows into a path."""
    booking = BookingFactory()
    return lambda path: path.format(
        service=booking.service_id, calendar=booking.calendar_id, booking=booking.pk
    )


def users(number):
    """Add `number` users with SQL. They are created later than all other users."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO accounts_user (id, password, name, email, role, timezone, is_active,"
            " created_at) SELECT gen_random_uuid(), '', 'Crowd ' || n, 'crowd' || n ||"
            " '@example.com', 'user', 'UTC', true, now() + n * interval '1 second'"
            " FROM generate_series(1, %s) AS n",
            [number],
        )
        cursor.execute("ANALYZE accounts_user")  # Estimated counts come from these statistics.


class TestDepth:
    @pytest.mark.parametrize("path", [*WITH_CURSOR, *WITHOUT_CURSOR])
    def test_the_deepest_page_can_be_read(self, admin, paths, path):
        for query in (f"offset={MAX_OFFSET}", f"page={DEEPEST_PAGE}"):
            assert admin.get(f"{paths(path)}?{query}").json()["results"] == []

    @pytest.mark.parametrize("path", WITH_CURSOR)
    @pytest.mark.parametrize(("name", "value"), TOO_DEEP)
    def test_a_list_with_cursors_refuses_a_deeper_page_and_suggests_a_cursor(
        self, admin, paths, path, name, value
    ):
        content = problem(admin.get(f"{paths(path)}?{name}={value}"), 400, "validation_error", name)
        assert "use cursor instead of page and offset" in content["errors"][0]["message"]

    @pytest.mark.parametrize("path", WITHOUT_CURSOR)
    @pytest.mark.parametrize(("name", "value"), TOO_DEEP)
    def test_a_list_without_cursors_refuses_a_deeper_page_and_suggests_no_cursor(
        self, admin, paths, path, name, value
    ):
        content = problem(admin.get(f"{paths(path)}?{name}={value}"), 400, "validation_error", name)
        message = content["errors"][0]["message"]
        assert "cursor" not in message
        assert WITHOUT_CURSOR[path] in message

    def test_a_refused_page_neither_reads_nor_counts_rows(self, admin):
        with CaptureQueriesContext(connection) as queries:
            response = admin.get(f"/users?offset={MAX_OFFSET + 1}")
        problem(response, 400, "validation_error", "offset")
        assert len(queries) == 1  # It reads the account of the admin.

    @pytest.mark.parametrize(
        "path", [path for path, part in WITHOUT_CURSOR.items() if part.startswith("filter")]
    )
    def test_the_message_names_only_parameters_that_the_list_has(self, admin, paths, path):
        response = admin.get(f"{paths(path)}?offset={MAX_OFFSET + 1}")
        message = response.json()["errors"][0]["message"]
        named = message.partition("filter the list by ")[2].rstrip(".")
        for name in named.split(", "):
            content = problem(admin.get(f"{paths(path)}?{name}="), 400, "validation_error", name)
            assert "is empty" in content["errors"][0]["message"]


class TestNextLink:
    """The `next` link of the last page that `offset` or `page` can reach."""

    def test_next_continues_with_a_cursor_if_the_list_has_cursors(self, admin):
        users(MAX_OFFSET + 150)
        page = admin.get(f"/users?limit=100&offset={MAX_OFFSET - 50}").json()
        assert "cursor=" in page["next"]
        assert "offset" not in page["next"]
        seen = [each["email"] for each in page["results"]]
        while page["next"]:
            page = admin.get(page["next"]).json()
            seen += [each["email"] for each in page["results"]]
        expected = User.objects.order_by("created_at", "id").values_list("email", flat=True)
        assert seen == list(expected)[MAX_OFFSET - 50 :]

    def test_next_of_the_deepest_page_by_number_continues_with_a_cursor(self, api, monkeypatch):
        monkeypatch.setattr("bookit.api.pagination.MAX_OFFSET", 2)
        user = UserFactory()
        BookingFactory.create_batch(5, user=user)
        client = api.as_(user)
        page = client.get("/bookings?limit=2&page=1").json()
        seen = page["results"]
        while page["next"]:
            page = client.get(page["next"]).json()
            seen += page["results"]
        assert "cursor=" in page["previous"]
        assert [each["id"] for each in seen] == [
            str(pk)
            for pk in Booking.objects.order_by("start_time", "id").values_list("pk", flat=True)
        ]

    def test_next_leads_to_an_error_if_the_list_has_no_cursors(self, admin):
        """A client that follows the link learns that it has not read everything."""
        Calendar.objects.bulk_create(
            Calendar(name=f"{number:05}") for number in range(MAX_OFFSET + 150)
        )
        with connection.cursor() as cursor:
            # Statistics that an earlier test has left can lead to a plan that takes seconds.
            cursor.execute("ANALYZE catalog_calendar")
        page = admin.get(f"/calendars?limit=100&offset={MAX_OFFSET - 50}").json()
        problem(admin.get(page["next"]), 400, "validation_error", "offset")


def test_the_limits_are_the_documented_ones():
    """The other tests, which use these names, would pass with other limits too."""
    assert MAX_OFFSET == MAX_COUNTED == MAX_FOUND == 10_000


class TestCount:
    def test_a_count_up_to_the_limit_is_exact(self, admin):
        users(MAX_COUNTED - 1)
        page = admin.get("/users").json()
        assert page["count"] == MAX_COUNTED
        assert "count_exact" not in page

    def test_a_count_beyond_the_limit_is_marked_as_an_estimate(self, admin):
        users(MAX_COUNTED + 5_000)
        page = admin.get("/users").json()
        assert page["count_exact"] is False
        assert 0.9 < page["count"] / (MAX_COUNTED + 5_001) < 1.1

    def test_at_most_one_row_beyond_the_limit_is_counted(self, admin):
        users(MAX_COUNTED + 5_000)
        with CaptureQueriesContext(connection) as queries:
            admin.get("/users?active=true")
        [count] = [each["sql"] for each in queries if "COUNT(*)" in each["sql"].upper()]
        assert f"LIMIT {MAX_COUNTED + 1}" in count

    def test_an_estimate_is_at_least_the_number_of_counted_rows(self, api, monkeypatch):
        monkeypatch.setattr("bookit.database.counts.MAX_COUNTED", 2)
        user = UserFactory()
        BookingFactory.create_batch(4, user=user)
        page = api.as_(user).get("/bookings?limit=1").json()
        assert page["count_exact"] is False
        assert page["count"] >= 4
        assert page["next"]

    def test_an_estimate_is_used_again_for_the_same_list_for_a_minute(self, api, monkeypatch):
        monkeypatch.setattr("bookit.database.counts.MAX_COUNTED", 2)
        user, other = UserFactory.create_batch(2)
        BookingFactory.create_batch(4, user=user)
        BookingFactory.create_batch(2, user=other)
        first = api.as_(user).get("/bookings?limit=1").json()
        Booking.objects.filter(user=user).first().delete()
        Booking.objects.filter(user=user).first().delete()

        second = api.as_(user).get("/bookings?limit=1&offset=1").json()
        assert (second["count"], second["count_exact"]) == (first["count"], False)
        assert "count_exact" not in api.as_(other).get("/bookings?limit=1").json()
        assert "count_exact" not in api.as_(user).get("/bookings?limit=1&status=pending").json()

        a_minute_later = monotonic() + counts.ESTIMATE_SECONDS
        monkeypatch.setattr("bookit.database.counts.monotonic", lambda: a_minute_later)
        third = api.as_(user).get("/bookings?limit=1").json()
        assert third["count"] == 2
        assert "count_exact" not in third

    def test_lists_with_different_values_of_a_filter_have_different_counts(self, api, monkeypatch):
        """Both lists have the same SQL text, because `%s` stands for the value of the filter."""
        monkeypatch.setattr("bookit.database.counts.MAX_COUNTED", 2)
        UserFactory.create_batch(4)
        ProviderFactory()
        admin = api.as_(AdminFactory())
        assert admin.get("/users?role=user&limit=1").json()["count_exact"] is False
        providers = admin.get("/users?role=provider&limit=1").json()
        assert providers["count"] == 1
        assert "count_exact" not in providers

    def test_an_empty_page_has_no_next_page_although_the_estimate_is_higher(self, api, monkeypatch):
        monkeypatch.setattr("bookit.database.counts.MAX_COUNTED", 2)
        user = UserFactory()
        bookings = BookingFactory.create_batch(5, user=user)
        me = api.as_(user)
        assert me.get("/bookings?limit=1").json()["count_exact"] is False
        for booking in bookings[1:]:
            booking.delete()
        monkeypatch.setattr(counts.estimates, "recent", lambda *query: 20_000)
        page = me.get("/bookings?limit=1&offset=3").json()
        assert (page["results"], page["next"], page["count"]) == ([], None, 3)

    def test_a_process_keeps_a_limited_number_of_estimates(self, monkeypatch):
        monkeypatch.setattr("bookit.database.counts.MAX_ESTIMATES", 3)
        for number in range(10):
            counts.estimates.keep("SELECT", [number], 20_000)
        assert counts.estimates.recent("SELECT", [9]) == 20_000
        assert len(counts.estimates._known) <= 3


def test_the_schema_documents_the_deepest_page(api):
    operations = contract.operations(api.get("/openapi.json").json())
    for path, suggestion in (("/bookings", "cursor"), ("/calendars", "filter or reorder")):
        found = {each["name"]: each for each in operations[f"GET {path}"]["parameters"]}
        assert found["offset"]["schema"]["maximum"] == MAX_OFFSET
        assert "10,000" in found["offset"]["description"]
        assert suggestion in found["offset"]["description"]
        assert suggestion in found["page"]["description"]
