"""A repeated POST with the same idempotency key gets the first response and changes nothing."""

import os
import socket
import threading
from datetime import timedelta
from time import monotonic
from unittest.mock import Mock

import psycopg
import pytest
import time_machine
from django.db import connection, transaction
from django.utils import timezone

from accounts.models import User
from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory, staff
from bookings import seats
from bookings import services as bookings
from bookings.availability.terms import TermsChanged
from bookings.models import Booking, BookingEvent, Slot
from bookings.tests.factories import TUESDAY, BookingFactory, SlotFactory
from bookit.idempotency import services
from bookit.idempotency.models import KeptResponse
from bookit.tests import contract
from bookit.tests.crowd import ask, at_once
from bookit.tests.expect import problem
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

HAIRCUT = {"title": "Haircut", "price": "25.00", "currency": "EUR", "duration_minutes": 30}
KEY = {"Idempotency-Key": "9f0c2b1e"}


@pytest.fixture
def user():
    return UserFactory()


@pytest.fixture
def slot():
    return SlotFactory(capacity=5)


def book(api, slot, headers=KEY, path="/bookings", **body):
    return api.post(path, {"slot_id": str(slot.pk), **body}, headers=headers)


def test_a_repeated_request_gets_the_first_response_and_books_once(api, user, slot):
    first = book(api.as_(user), slot)
    again = book(api.as_(user), slot)

    assert first.status_code == again.status_code == 201
    assert again.content == first.content
    assert again["Location"] == first["Location"]
    assert again["Content-Type"] == first["Content-Type"]
    assert "Idempotent-Replayed" not in first
    assert again["Idempotent-Replayed"] == "true"
    assert Booking.objects.count() == 1
    assert BookingEvent.objects.count() == 1


def test_a_repeated_response_has_the_entity_tag_of_the_first(api, user, slot):
    client = api.as_(user)
    first = book(client, slot)
    again = book(client, slot, headers={**KEY, "Time-Zone": "Asia/Tokyo"})

    assert again["ETag"] == first["ETag"]
    path, notes = f"/bookings/{first.json()['id']}", {"notes": "Window seat"}
    changed = client.patch(path, notes, headers={"If-Match": again["ETag"]})
    assert changed.status_code == 200
    outdated = {"If-Match": book(client, slot)["ETag"]}
    problem(client.patch(path, notes, headers=outdated), 412, "precondition_failed")


def test_a_repeated_response_without_a_version_has_no_entity_tag(api, slot):
    client = api.as_(AdminFactory())
    start = timezone.now() + timedelta(days=1)
    body = {"service_id": str(slot.service_id), "start_time": start.isoformat()}
    body["rrule"] = "FREQ=DAILY;COUNT=2"  # The list of several slots has no version.
    first, again = (client.post("/slots", body, headers=KEY) for _ in range(2))

    assert first.status_code == again.status_code == 201
    assert again["Idempotent-Replayed"] == "true"
    assert "ETag" not in first
    assert "ETag" not in again


def test_a_repeated_refusal_does_not_claim_to_be_in_the_language_of_the_second_request(api, user):
    def refusal(language):
        headers = {**KEY, "Accept-Language": language}
        return api.as_(user).post("/bookings", {}, headers=headers)

    first, again = refusal("de"), refusal("ru")

    assert first["Content-Language"] == "de"
    assert again.content == first.content
    assert "Content-Language" not in again


def test_without_a_key_each_request_books(api, user, slot):
    assert [book(api.as_(user), slot, headers={}).status_code for _ in range(3)] == [201] * 3
    assert Booking.objects.count() == 3


@pytest.mark.parametrize(
    ("path", "more"),
    [("/bookings", {"notes": "Window seat"}), ("/bookings?tz=Asia/Tokyo", {})],
)
def test_a_different_request_with_the_same_key_is_refused(api, user, slot, path, more):
    book(api.as_(user), slot)

    problem(book(api.as_(user), slot, path=path, **more), 422, "idempotency_key_reused")
    assert Booking.objects.count() == 1


def test_the_order_and_spacing_of_the_json_do_not_matter(api, user, slot):
    send = api.as_(user).generic
    bodies = (
        f'{{"slot_id":"{slot.pk}","notes":"a"}}',
        f'{{ "notes": "a", "slot_id": "{slot.pk}" }}',
    )
    responses = [
        send("POST", "/bookings", body, content_type="application/json", headers=KEY)
        for body in bodies
    ]

    assert [response.status_code for response in responses] == [201, 201]
    assert responses[1]["Idempotent-Replayed"] == "true"


def test_a_body_that_is_nested_too_deeply_is_refused(api, user):
    body = '{"notes":' + "[" * 300 + "]" * 300 + "}"
    response = api.as_(user).generic(
        "POST", "/bookings", body, content_type="application/json", headers=KEY
    )
    problem(response, 400, "parse_error")


def test_the_same_key_of_another_user_is_another_key(api, user, slot):
    mine, theirs = book(api.as_(user), slot), book(api.as_(UserFactory()), slot)

    assert "Idempotent-Replayed" not in theirs
    assert mine.json()["id"] != theirs.json()["id"]


def test_a_response_is_not_repeated_to_staff_who_may_no_longer_book_for_others(api, user, slot):
    receptionist = staff(["bookings.add_booking"])
    first = book(api.as_(receptionist), slot, user_id=str(user.pk))
    assert first.json()["attendee_email"] == user.email
    receptionist.groups.clear()

    again = book(api.as_(receptionist), slot, user_id=str(user.pk))

    problem(again, 403, "permission_denied")
    assert user.email not in again.text


def test_a_key_lasts_for_a_day(api, user, slot):
    now = timezone.now()
    with time_machine.travel(now, tick=False):
        first = book(api.as_(user), slot)
    with time_machine.travel(now + timedelta(days=1, seconds=-1), tick=False):
        assert book(api.as_(user), slot).json() == first.json()
    with time_machine.travel(now + timedelta(days=1), tick=False):
        renewed = book(api.as_(user), slot)
        assert renewed.json()["id"] != first.json()["id"]
        assert book(api.as_(user), slot).json() == renewed.json()


def test_old_responses_are_deleted(api, user, slot):
    now = timezone.now()
    with time_machine.travel(now, tick=False):
        book(api.as_(user), slot)

    assert services.prune(at=now + services.KEPT - timedelta(seconds=1)) == 0
    assert services.prune(at=now + services.KEPT) == 1
    assert not KeptResponse.objects.exists()


def test_a_conflict_is_not_kept(api, user, slot):
    slot.capacity = 1
    slot.save()
    taken = BookingFactory(
        slot=slot, service=slot.service, calendar=slot.calendar, start_time=slot.start_time
    )
    refusal = problem(book(api.as_(user), slot), 409, "slot_full")
    taken.delete()

    assert refusal["alternatives"] == []
    assert book(api.as_(user), slot).status_code == 201


def test_a_conflict_still_names_alternatives(api, user):
    service = ServiceFactory()
    BookingFactory(service=service, start_time=TUESDAY)
    body = {"service_id": str(service.pk), "start_time": TUESDAY.isoformat()}

    refusal = problem(api.as_(user).post("/bookings", body, headers=KEY), 409, "booking_conflict")

    assert len(refusal["alternatives"]) == 3


def test_the_response_to_an_invalid_request_is_kept(api, user, slot):
    first = book(api.as_(user), slot, start_time="tomorrow")
    again = book(api.as_(user), slot, start_time="tomorrow")

    problem(first, 400, "validation_error", "start_time")
    assert again.content == first.content
    assert again["Content-Type"] == "application/problem+json"
    assert again["Idempotent-Replayed"] == "true"


def test_a_403_is_not_kept(api, user, slot, settings):
    """After the user has verified their address, the repeated request succeeds."""
    settings.BOOKING_REQUIRES_VERIFIED_EMAIL = True
    problem(book(api.as_(user), slot), 403, "email_not_verified")
    assert not KeptResponse.objects.exists()

    User.objects.filter(pk=user.pk).update(verified_email=user.email)
    assert book(api.as_(user), slot).status_code == 201


def test_the_403_for_a_user_without_the_role_is_not_kept(api, user):
    body = {"name": "A"}
    responses = [api.as_(user).post("/calendars", body, headers=KEY) for _ in range(2)]

    # The view checks the role before the key.
    assert [response.status_code for response in responses] == [403, 403]
    assert not KeptResponse.objects.exists()


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_an_empty_or_too_long_key_is_refused(api, user, slot, key):
    response = book(api.as_(user), slot, headers={"Idempotency-Key": key})

    problem(response, 400, "validation_error", "Idempotency-Key")
    assert not Booking.objects.exists()


def test_a_refused_key_is_explained_in_the_language_of_the_client(api, user, slot):
    headers = {"Idempotency-Key": "x" * 256, "Accept-Language": "de"}

    response = book(api.as_(user), slot, headers=headers)

    [error] = response.json()["errors"]
    assert error["message"] == "Verwenden Sie 1 bis 255 Zeichen."


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("post", "/auth/login"),
        ("post", "/auth/register"),
        ("patch", "/me"),
        ("post", "/me/password"),
        ("get", "/bookings"),
        ("get", "/services"),
    ],
)
def test_endpoints_that_do_not_support_keys_refuse_them(api, user, method, path):
    response = getattr(api.as_(user), method)(path, headers=KEY)

    problem(response, 400, "validation_error", "Idempotency-Key")


def test_a_booking_whose_response_cannot_be_kept_is_rolled_back(api, user, slot, monkeypatch):
    api = api.as_(user)
    api.raise_request_exception = False
    with monkeypatch.context() as patch:
        patch.setattr(services, "keep", lambda **_: 1 / 0)
        problem(book(api, slot), 500, "internal_error")
    assert not Booking.objects.exists()

    assert book(api, slot).status_code == 201


def test_a_503_that_tells_the_client_to_try_again_is_not_kept(api, user, monkeypatch):
    """`TermsChanged` is a 503. The repeated request must not get the 503 again."""
    body = {"service_id": str(ServiceFactory().pk), "start_time": TUESDAY.isoformat()}
    with monkeypatch.context() as patch:
        patch.setattr(bookings, "create_booking", Mock(side_effect=TermsChanged))
        problem(api.as_(user).post("/bookings", body, headers=KEY), 503, TermsChanged.code)

    response = api.as_(user).post("/bookings", body, headers=KEY)

    assert response.status_code == 201
    assert "Idempotent-Replayed" not in response


def test_post_requests_that_create_something_accept_a_key(api):
    admin = api.as_(AdminFactory())
    calendar = CalendarFactory(provider=ProviderFactory())
    calendars = f"/calendars/{calendar.pk}"
    created = [
        ("/calendars", {"name": "A", "provider_id": str(calendar.provider_id)}),
        (
            f"{calendars}/time-off",
            {"start_time": "2999-01-01T00:00:00Z", "end_time": "2999-01-02T00:00:00Z"},
        ),
        ("/services", {**HAIRCUT, "calendar_id": str(calendar.pk)}),
        ("/webhooks", {"url": "https://example.com/hook", "events": ["booking.created"]}),
    ]
    for number, (path, body) in enumerate(created):
        headers = {"Idempotency-Key": f"key-{number}"}
        first, again = (admin.post(path, body, headers=headers) for _ in range(2))

        assert first.status_code == 201, first.content
        assert again.content == first.content
        assert again["Idempotent-Replayed"] == "true"


def test_the_openapi_document_lists_the_key_for_requests_that_create_something(api):
    operations = contract.operations(api.get("/openapi.json").json())
    creates = {
        name
        for name, operation in operations.items()
        if name.startswith("POST ") and "201" in operation["responses"]
    }
    takes = {
        name
        for name, operation in operations.items()
        if any(each["name"] == "Idempotency-Key" for each in operation.get("parameters", []))
    }

    # A client that registers is not signed in, so its key would have no owner. An email address can
    # register only once anyway. The response with an API key is not kept, because BookIt does not
    # store the API key itself.
    assert creates - takes == {"POST /auth/register", "POST /me/api-keys"}
    # These requests send a message later, so their status is 202.
    assert takes - creates == {
        "POST /webhooks/{id}/test",
        "POST /webhooks/{webhook_id}/deliveries/{id}/redeliver",
    }
    for name in takes:
        responses = operations[name]["responses"]
        assert "idempotency_in_progress" in responses["409"]["description"]
        assert "idempotency_key_reused" in responses["422"]["description"]


@pytest.mark.django_db(transaction=True)
class TestConcurrently:
    """Tests that need real transactions, for example because requests run at the same time."""

    def test_ten_identical_concurrent_requests_book_once(self, api, user, slot):
        client = api.as_(user)

        outcomes = at_once([lambda: book(client, slot)] * 10)

        responses = [outcome.value for outcome in outcomes]
        assert {response.status_code for response in responses} <= {201, 409}
        created = {response.json()["id"] for response in responses if response.status_code == 201}
        assert len(created) == 1
        for response in responses:
            if response.status_code == 409:
                problem(response, 409, "idempotency_in_progress")
        assert Booking.objects.count() == 1
        assert book(client, slot).json()["id"] in created

    def test_identical_concurrent_requests_without_a_key_all_book(self, api, user, slot):
        """Control for the test above: only the key prevents a second booking."""
        client = api.as_(user)

        outcomes = at_once([lambda: book(client, slot, headers={})] * 3)

        assert [outcome.value.status_code for outcome in outcomes] == [201] * 3

    def test_a_request_is_refused_while_its_key_is_in_progress(self, api, user, slot):
        claimed, done = threading.Event(), threading.Event()

        def hold():
            with transaction.atomic():
                services.claim(
                    owner=user.pk, key=KEY["Idempotency-Key"], fingerprint=b"", at=timezone.now()
                )
                claimed.set()
                assert done.wait(30)

        def book_while_claimed():
            assert claimed.wait(30)
            try:
                return book(api.as_(user), slot)
            finally:
                done.set()

        _, outcome = at_once([hold, book_while_claimed])

        problem(outcome.value, 409, "idempotency_in_progress")
        assert book(api.as_(user), slot).status_code == 201

    def test_the_key_of_a_killed_process_can_be_used_again(self, api, user, slot):
        """PostgreSQL releases the lock of the process when its connection is closed."""

        values = {
            "owner": user.pk,
            "key": KEY["Idempotency-Key"],
            "since": timezone.now() - services.KEPT,
        }
        session = psycopg.connect(**connection.get_connection_params())
        session.execute(services.CLAIM, values)
        problem(book(api.as_(user), slot), 409, "idempotency_in_progress")

        # Close the connection without a message to PostgreSQL, as when a process is killed.
        with socket.socket(fileno=os.dup(session.fileno())) as same:
            same.shutdown(socket.SHUT_RDWR)

        deadline = monotonic() + 30
        while (response := book(api.as_(user), slot)).status_code == 409:
            assert monotonic() < deadline
        assert response.status_code == 201

    def test_locks_of_an_unreachable_host_end_within_a_minute(self):
        """PostgreSQL ends a session, and its locks, when TCP keepalives get no response."""
        idle, interval, count = (
            int(ask(f"SELECT current_setting('tcp_keepalives_{name}')"))
            for name in ("idle", "interval", "count")
        )

        assert 0 < idle + interval * count <= 60

    def test_the_transaction_is_still_usable_after_a_refused_insert(self, api, user, monkeypatch):
        """A slot that is published just before the insert makes the database refuse the insert."""
        service = ServiceFactory(capacity=2)
        fetch = seats.fetch

        def publish_slot_first(text, *arguments, **options):
            if text == seats.CREATE_IN_SERVICE and not Slot.objects.exists():
                at_once([lambda: SlotFactory(service=other, start_time=TUESDAY)])
            return fetch(text, *arguments, **options)

        other = ServiceFactory(calendar=service.calendar, mode="slots")
        monkeypatch.setattr(seats, "fetch", publish_slot_first)
        body = {"service_id": str(service.pk), "start_time": TUESDAY.isoformat()}

        response = api.as_(user).post("/bookings", body, headers=KEY)

        assert problem(response, 409, "booking_conflict")["alternatives"]
        assert not Booking.objects.exists()

    def test_a_response_that_the_claim_missed_is_replayed(self, api, user, slot, monkeypatch):
        """`claim` takes its snapshot before its lock, so it misses a response stored in between."""
        claim, outcomes = services.claim, []

        def claim_too_early(**values):
            kept = claim(**values)
            if not outcomes:
                outcomes.extend(at_once([lambda: keep_another(values)]))
            return kept

        def keep_another(values):
            rest = {"status": 201, "location": "/there", "body": b'{"id":"first"}'}
            services.keep(**values, **rest, user_id=user.pk)

        monkeypatch.setattr(services, "claim", claim_too_early)

        response = book(api.as_(user), slot)

        assert outcomes[0].error is None
        assert response.json() == {"id": "first"}
        assert response["Idempotent-Replayed"] == "true"
        assert not Booking.objects.exists()
