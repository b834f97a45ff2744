"""The API for time off: periods in which a calendar is closed, whatever its opening hours."""

from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory
from bookit.tests.crowd import at_once
from bookit.tests.expect import problem
from catalog import services
from catalog.models import Calendar, TimeOff
from catalog.tests.factories import CalendarFactory, TimeOffFactory

pytestmark = pytest.mark.django_db

AUGUST = {
    "start_time": "2999-08-01T00:00:00Z",
    "end_time": "2999-09-01T00:00:00Z",
    "reason": "Summer holidays",
}
NO_BOOKINGS = {"count": 0, "ids": []}
ANY_ID = "01980000-0000-7000-8000-000000000000"


@pytest.fixture
def provider():
    return ProviderFactory()


@pytest.fixture
def calendar(provider):
    return CalendarFactory(provider=provider)


@pytest.fixture
def client(api, provider):
    return api.as_(provider)


@pytest.fixture
def path(calendar):
    return f"/calendars/{calendar.pk}/time-off"


def ids(response):
    assert response.status_code == 200, response.content
    return [row["id"] for row in response.json()["results"]]


class TestCreate:
    def test_a_calendar_is_closed_for_a_period(self, client, calendar, path):
        response = client.post(path, AUGUST)
        assert response.status_code == 201
        shown = response.json()
        assert UUID(shown["id"]).version == 7
        assert shown == {
            "id": shown["id"],
            "calendar_id": str(calendar.pk),
            **AUGUST,
            "created_at": shown["created_at"],
            "affected_bookings": NO_BOOKINGS,
        }
        assert response["Location"] == f"http://testserver{path}/{shown['id']}"
        del shown["affected_bookings"]
        assert client.get(path).json()["results"] == [shown]

    def test_the_reason_is_optional(self, client, path):
        period = {name: AUGUST[name] for name in ("start_time", "end_time")}
        for body in (period, {**period, "reason": ""}, {**period, "reason": "  "}):
            assert client.post(path, body).json()["reason"] == ""

    def test_time_off_may_overlap_or_repeat(self, client, path):
        for _ in range(2):
            assert client.post(path, AUGUST).status_code == 201
        weekend = {"start_time": "2999-08-31T00:00:00Z", "end_time": "2999-09-02T00:00:00Z"}
        assert client.post(path, weekend).status_code == 201
        assert client.get(path).json()["count"] == 3

    def test_time_off_may_be_in_the_past(self, client, path):
        past = {"start_time": "2001-08-01T00:00:00Z", "end_time": "2001-08-01T00:00:01Z"}
        assert client.post(path, past).status_code == 201

    def test_times_are_shown_with_the_offset_of_the_requested_zone(self, client, path):
        local = {"start_time": "2026-08-01T00:00:00+02:00", "end_time": "2026-08-02T00:00:00+02:00"}
        result = client.post(f"{path}?tz=Europe/Paris", local).json()
        assert {name: result[name] for name in local} == local
        [shown] = client.get(path).json()["results"]
        assert shown["start_time"] == "2026-07-31T22:00:00Z"

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"end_time": AUGUST["start_time"]}, "end_time"),
            ({"end_time": "2999-07-31T23:59:59Z"}, "end_time"),
            ({"end_time": "2999-08-01T00:00:00+01:00"}, "end_time"),
            ({"end_time": "2999-08-01"}, "end_time"),
            ({"end_time": "2999-08-31T00:00:00"}, "end_time"),
            ({"end_time": None}, "end_time"),
            ({"start_time": "2989-07-31T00:00:00Z"}, "end_time"),
            ({"start_time": "2999-08-01"}, "start_time"),
            ({"start_time": None}, "start_time"),
            ({"start_time": 5}, "start_time"),
            ({"reason": "x" * 201}, "reason"),
            ({"reason": None}, "reason"),
            ({"reason": "\0"}, "reason"),
            ({"why": "Holidays"}, "why"),
        ],
    )
    def test_the_error_names_an_invalid_field_and_nothing_is_stored(
        self, client, path, change, named
    ):
        problem(client.post(path, {**AUGUST, **change}), 400, "validation_error", named)
        assert not TimeOff.objects.exists()

    def test_start_and_end_are_required(self, client, path):
        response = client.post(path, {"reason": "Holidays"})
        problem(response, 400, "validation_error", "start_time", "end_time")

    def test_time_off_lasts_at_most_ten_years(self, client, path):
        start = datetime(2027, 8, 1, tzinfo=UTC)
        for end, status in (
            (start.replace(year=2037), 201),
            (start.replace(year=2037) + timedelta(seconds=1), 400),
        ):
            body = {"start_time": start.isoformat(), "end_time": end.isoformat()}
            assert client.post(path, body).status_code == status


class TestList:
    def test_time_off_is_ordered_by_start(self, client, calendar, path):
        later, first = (
            TimeOffFactory(calendar=calendar, start_time=datetime(2999, month, 1, tzinfo=UTC))
            for month in (8, 2)
        )
        TimeOffFactory()
        assert ids(client.get(path)) == [str(first.pk), str(later.pk)]
        assert ids(client.get(f"{path}?ordering=-start_time")) == [str(later.pk), str(first.pk)]

    def test_time_off_is_paged(self, client, calendar, path):
        rows = [TimeOffFactory(calendar=calendar) for _ in range(5)]
        expected = [str(row.pk) for row in rows]
        seen, url = [], f"{path}?limit=2"
        while url:
            page = client.get(url)
            assert page.json()["count"] == 5
            seen += ids(page)
            url = page.json()["next"]
        assert seen == expected

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ("from=2999-08-02", []),
            ("from=2999-08-01", ["noon"]),
            ("from=2999-08-01T14:00:00Z", []),
            ("from=2999-08-01T13:59:59Z", ["noon"]),
            ("to=2999-07-31", []),
            ("to=2999-08-01", ["noon"]),
            ("to=2999-08-01T12:00:00Z", []),
            ("to=2999-08-01T12:00:01Z", ["noon"]),
            ("from=2999-08-01T13:00:00Z&to=2999-08-01T13:00:01Z", ["noon"]),
            # In Kiritimati, these two hours are on the second of August.
            ("from=2999-08-02&tz=Pacific/Kiritimati", ["noon"]),
            ("to=2999-08-01&tz=Pacific/Kiritimati", []),
        ],
    )
    def test_from_and_to_find_time_off_that_overlaps_the_window(
        self, client, calendar, path, query, found
    ):
        TimeOffFactory(
            calendar=calendar,
            reason="noon",
            start_time=datetime(2999, 8, 1, 12, tzinfo=UTC),
            end_time=datetime(2999, 8, 1, 14, tzinfo=UTC),
        )
        rows = client.get(f"{path}?{query}").json()["results"]
        assert [row["reason"] for row in rows] == found

    @pytest.mark.parametrize(
        "query", ["from=x", "to=2999-13-01", "ordering=reason", "cursor=", "reason=x", "limit=x"]
    )
    def test_the_error_names_the_invalid_parameter(self, client, path, query):
        problem(client.get(f"{path}?{query}"), 400, "validation_error", query.split("=")[0])


class TestDelete:
    def test_time_off_is_deleted(self, client, path):
        response = client.delete(client.post(path, AUGUST)["Location"])
        assert (response.status_code, response.content) == (204, b"")
        assert not TimeOff.objects.exists()

    def test_time_off_is_deleted_only_under_its_own_calendar(self, client, provider, path):
        elsewhere = TimeOffFactory(calendar=CalendarFactory(provider=provider))
        problem(client.delete(f"{path}/{elsewhere.pk}"), 404, "not_found")
        assert TimeOff.objects.count() == 1

    def test_deleted_time_off_is_not_found(self, client, path):
        location = client.post(path, AUGUST)["Location"]
        assert client.delete(location).status_code == 204
        problem(client.delete(location), 404, "not_found")

    def test_a_calendar_is_deleted_with_its_time_off(self, client, calendar, path):
        client.post(path, AUGUST)
        assert client.delete(f"/calendars/{calendar.pk}").status_code == 204
        assert not TimeOff.objects.exists()


class TestPermissions:
    def test_an_unknown_calendar_is_not_found(self, client, api):
        for who in (client, api.as_(AdminFactory())):
            for calendar_id in (uuid4(), ANY_ID):
                path = f"/calendars/{calendar_id}/time-off"
                problem(who.get(path), 404, "not_found")
                problem(who.post(path, AUGUST), 404, "not_found")
                problem(who.delete(f"{path}/{ANY_ID}"), 404, "not_found")

    def test_other_users_neither_see_nor_change_time_off(self, api, client, path):
        location = client.post(path, AUGUST)["Location"]
        for stranger in (UserFactory(), ProviderFactory()):
            other = api.as_(stranger)
            for response in (other.get(path), other.post(path, AUGUST), other.delete(location)):
                content = problem(response, 403, "permission_denied")
                assert AUGUST["reason"] not in str(content)
        for response in (api.get(path), api.post(path, AUGUST), api.delete(location)):
            problem(response, 401, "not_authenticated")
        assert TimeOff.objects.count() == 1

    def test_only_admins_close_a_calendar_without_a_provider(self, api, client):
        path = f"/calendars/{CalendarFactory().pk}/time-off"
        problem(client.post(path, AUGUST), 403, "permission_denied")
        assert api.as_(AdminFactory()).post(path, AUGUST).status_code == 201


def queries(call):
    """Return the statements that a call runs."""
    with CaptureQueriesContext(connection) as captured:
        call()
    return [query["sql"] for query in captured.captured_queries]


class TestQueries:
    @pytest.mark.parametrize("rows", [2, 30])
    def test_a_list_takes_three_queries_and_a_full_page_takes_four(
        self, client, calendar, path, rows
    ):
        # The queries read the account, the calendar and its time off. Only a full page needs
        # another query, which counts the rows.
        TimeOffFactory.create_batch(rows, calendar=calendar)
        assert len(queries(lambda: client.get(f"{path}?limit=100"))) == 3
        assert len(queries(lambda: client.get(f"{path}?limit=1"))) == 4

    @pytest.mark.parametrize("rows", [0, 30])
    def test_creating_time_off_takes_seven_queries(self, client, calendar, path, rows):
        # Permissions: account and calendar. Service: savepoint, calendar (locked), time off,
        # bookings, release of the savepoint.
        TimeOffFactory.create_batch(rows, calendar=calendar)
        made = queries(lambda: client.post(path, AUGUST))
        assert len(made) == 7, made
        assert made[3].endswith("FOR UPDATE")

    def test_deleting_time_off_takes_seven_queries(self, client, path):
        # Permissions: account and calendar. Service: savepoint, calendar (locked), time off,
        # deletion, release of the savepoint.
        location = client.post(path, AUGUST)["Location"]
        made = queries(lambda: client.delete(location))
        assert len(made) == 7, made
        assert made[3].endswith("FOR UPDATE")


@pytest.mark.django_db(transaction=True)
class TestRaces:
    def test_no_time_off_is_left_if_it_is_created_while_its_calendar_is_deleted(self):
        admin = AdminFactory()
        for _ in range(20):
            calendar = CalendarFactory()
            deleted, closed = at_once(
                [
                    partial(services.delete_calendar, calendar_id=calendar.pk, actor=admin),
                    partial(
                        services.create_time_off,
                        calendar_id=calendar.pk,
                        actor=admin,
                        start_time=timezone.now(),
                        end_time=timezone.now() + timedelta(days=1),
                        at=timezone.now(),
                    ),
                ]
            )
            assert deleted.error is None
            assert closed.error is None or isinstance(closed.error, Calendar.DoesNotExist)
            assert not TimeOff.objects.exists()
