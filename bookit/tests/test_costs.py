"""No request can cost too much: long lists are refused, and slow anonymous reads cancelled."""

import json
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from unittest.mock import patch

import psycopg
import pytest
from django.db import connection
from rest_framework import serializers

import bookit.urls  # noqa: F401 - imports every serializer, so that LISTS is complete
from accounts.tests.factories import AdminFactory, UserFactory
from bookings.models import Booking
from bookings.tests.factories import BookingFactory
from bookings.tests.workers import database_url, until
from bookit import deadlines
from bookit.api.serializers import RowSerializer, StrictMixin, StrictSerializer
from bookit.database.postgresql.connections import Connection
from bookit.tests.expect import problem
from catalog.serializers import PrivateFieldsSerializer
from catalog.tests.factories import ServiceFactory

ANY_ID = "01980000-0000-7000-8000-000000000000"
MEBIBYTE = 1024 * 1024
ABSTRACT = {StrictSerializer, RowSerializer, PrivateFieldsSerializer}


def every_serializer(base=StrictMixin):
    """Yield each class of the API's serializers."""
    for child in base.__subclasses__():
        if child not in ABSTRACT:
            yield child
        yield from every_serializer(child)


def lists(field, path):
    """Yield the lists that clients can send in `field`, with their paths."""
    if field.read_only:
        return
    if isinstance(field, serializers.ListField | serializers.ListSerializer):
        yield path, field
        yield from lists(field.child, f"{path}.0")
    elif isinstance(field, serializers.Serializer):
        for name, inner in field.fields.items():
            yield from lists(inner, f"{path}.{name}")


LISTS = [
    pytest.param(field, id=path)
    for serializer in sorted(set(every_serializer()), key=lambda each: each.__name__)
    for path, field in lists(serializer(), serializer.__name__)
]


class TestLists:
    def test_the_lists_of_the_api_are_found(self):
        found = {each.id for each in LISTS}
        assert {
            "BookingCreateSerializer.service_ids",
            "ServicesSearchSerializer.service_id",
            "WebhookSerializer.events",
            "CalendarSerializer.opening_hours",
        } <= found

    @pytest.mark.parametrize("field", LISTS)
    def test_a_too_long_list_is_refused_before_its_items_are_checked(self, field):
        assert field.max_length
        with patch.object(field.child, "run_validation", side_effect=AssertionError("checked")):
            with pytest.raises(AssertionError, match="checked"):  # Control.
                field.run_validation([None])
            with pytest.raises(serializers.ValidationError) as refused:
                field.run_validation([None] * (field.max_length + 1))
        codes = refused.value.get_codes()
        assert codes == ["max_length"] or codes == {"": ["max_length"]}

    @pytest.mark.django_db
    @pytest.mark.parametrize(
        ("method", "path", "body", "field"),
        [
            ("post", "/bookings", {"service_ids": ["x"] * 200_000}, "service_ids"),
            ("post", "/bookings", {"service_ids": [ANY_ID] * 26_000}, "service_ids"),
            ("post", "/bookings", {"service_ids": [[]] * 200_000}, "service_ids"),
            ("post", "/webhooks", {"url": "http://8.8.8.8", "events": ["x"] * 200_000}, "events"),
            ("post", "/calendars", {"name": "x", "opening_hours": [{}] * 200_000}, "opening_hours"),
        ],
    )
    def test_an_enormous_list_is_refused_quickly(self, api, method, path, body, field):
        admin = api.as_(AdminFactory())
        encoded = json.dumps(body)
        assert len(encoded) < MEBIBYTE
        began = time.process_time()
        response = getattr(admin, method)(path, encoded, content_type="application/json")
        spent = time.process_time() - began
        problem(response, 400, "validation_error", field)
        assert len(response.content) < 2000
        assert spent < 1  # Checking every item would take 3 s.

    @pytest.mark.django_db
    def test_an_enormous_list_is_refused_with_little_memory(self, api):
        admin = api.as_(AdminFactory())
        encoded = json.dumps({"service_ids": ["x"] * 200_000})
        tracemalloc.start()
        try:
            problem(
                admin.post("/bookings", encoded, content_type="application/json"),
                400,
                "validation_error",
                "service_ids",
            )
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 30 * MEBIBYTE  # A separate error for every item would take 250 MB.

    @pytest.mark.django_db
    @pytest.mark.parametrize("path", ["/bookings?status=", "/events?type="])
    def test_a_parameter_with_too_many_values_is_refused(self, api, path):
        admin = api.as_(AdminFactory())
        value = "pending" if "status" in path else "booking.created"
        assert admin.get(path + ",".join([value] * 3)).status_code == 200
        name = path.split("?")[1][:-1]
        content = problem(admin.get(path + ",".join([value] * 900)), 400, "validation_error", name)
        assert "at most" in content["errors"][0]["message"]

    @pytest.mark.django_db
    def test_the_first_unknown_fields_are_named_in_the_order_of_the_body(self, api):
        body = {"name": "x"} | {f"f{number}": 0 for number in range(60_000, 0, -1)}
        began = time.process_time()
        response = api.as_(AdminFactory()).post("/calendars", body)
        assert time.process_time() - began < 1
        content = problem(response, 400, "validation_error")
        assert [each["field"] for each in content["errors"]] == [
            f"f{number}" for number in range(60_000, 59_980, -1)
        ]


@contextmanager
def slow_services():
    """Make queries of services wait until the block ends, or the yielded connection rolls back."""
    with psycopg.connect(database_url()) as holder:
        holder.execute("LOCK TABLE catalog_service IN ACCESS EXCLUSIVE MODE")
        yield holder


def waiting():
    """Return how many sessions of the test database wait for a lock."""
    with psycopg.connect(database_url(), autocommit=True) as own_connection:
        [(count,)] = own_connection.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ).fetchall()
    return count


@pytest.mark.django_db(transaction=True)
class TestReadsWithoutAToken:
    """An anonymous request cannot keep PostgreSQL busy for long."""

    @pytest.fixture(autouse=True)
    def limit(self, monkeypatch):
        monkeypatch.setattr(deadlines, "ANON_LIMIT", 0.3)

    @pytest.fixture
    def ask(self):
        """Return a function that sends a GET request in a thread, which has its own connection."""
        with ThreadPoolExecutor() as pool:

            def get(client, path):
                try:
                    return client.get(path)
                finally:
                    connection.close()

            yield lambda *arguments: pool.submit(get, *arguments)

    def test_a_slow_read_is_cancelled_and_returns_503(self, api, ask):
        path = f"/services/{ServiceFactory().pk}"
        assert ask(api, path).result().status_code == 200
        with slow_services():
            began = time.monotonic()
            response = ask(api, path).result()
            assert time.monotonic() - began < 2
            content = problem(response, 503, "service_unavailable")
            assert "too long" in content["detail"]
            assert response["Retry-After"]
            # PostgreSQL has cancelled the statement too.
            until(lambda: waiting() == 0, seconds=5)
        assert ask(api, path).result().status_code == 200

    def test_without_cancellation_the_statement_keeps_waiting(self, api, ask, monkeypatch):
        """Control for the test above: the statement keeps waiting in PostgreSQL."""
        monkeypatch.setattr(Connection, "_cancel", lambda self: False)
        path = f"/services/{ServiceFactory().pk}"
        with slow_services():
            problem(ask(api, path).result(), 503, "service_unavailable")
            assert waiting() == 1

    def test_the_read_of_a_signed_in_user_may_take_longer(self, api, ask):
        path = f"/services/{ServiceFactory().pk}"
        user = api.as_(UserFactory())
        with slow_services() as holder:
            response = ask(user, path)
            until(lambda: waiting() == 1, seconds=5)
            time.sleep(0.5)  # This is longer than the limit for anonymous reads.
            assert not response.done()
            holder.rollback()
            assert response.result().status_code == 200


@pytest.mark.django_db
class TestOrdering:
    @pytest.mark.parametrize(
        "ordering",
        [
            ",".join(["start_time"] * 200),
            ",".join(["start_time", "-start_time"] * 100),
            "start_time,created_at,start_time",
            "start_time,start_time",
        ],
    )
    def test_an_ordering_with_a_repeated_field_is_refused(self, api, ordering):
        user = UserFactory()
        BookingFactory.create_batch(3, user=user)
        client = api.as_(user)
        for more in ("", "&cursor=&limit=1", "&page=1"):
            content = problem(
                client.get(f"/bookings?ordering={ordering}{more}"),
                400,
                "validation_error",
                "ordering",
            )
            assert "once" in content["errors"][0]["message"]

    def test_a_cursor_reads_every_row_in_an_ordering_by_every_field(self, api):
        user = UserFactory()
        BookingFactory.create_batch(3, user=user)
        page = api.as_(user).get("/bookings?ordering=-start_time,created_at&cursor=&limit=1")
        seen = page.json()["results"]
        while page.json()["next"]:
            page = api.as_(user).get(page.json()["next"])
            seen += page.json()["results"]
        assert len({each["id"] for each in seen}) == Booking.objects.count() == 3
