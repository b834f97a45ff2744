"""`GET /events`: a client that polls gets every event exactly once."""

from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from accounts.tests.factories import AdminFactory, UserFactory
from bookings import events
from bookings.models import Booking, BookingEvent
from bookings.services import change_status
from bookings.tests.factories import TUESDAY, BookingFactory, WebhookFactory
from bookings.tests.jobs import follow_events_up
from bookings.tests.settle import settle
from bookings.webhooks.models import Webhook
from bookit.api.pagination import EventPagination, _encode
from bookit.restores.positions import LOWEST, Step
from bookit.tests.crowd import ask, behind_a_rival, disabled_trigger
from bookit.tests.expect import problem
from catalog.tests.factories import ServiceFactory

# The feed hides the events of open transactions, so the tests must not run in a transaction.
pytestmark = pytest.mark.django_db(transaction=True)

LOCK = "SELECT FROM bookings_booking WHERE calendar_id = %s AND id = %s FOR UPDATE"
WRITE = """
INSERT INTO bookings_bookingevent (id, calendar_id, booking_id, type, at, data)
VALUES (coalesce(%s, uuid7()), %s, %s, 'booking.created', now(), '{}') RETURNING id
"""


@pytest.fixture
def admin(api):
    return api.as_(AdminFactory())


@pytest.fixture
def booking():
    return BookingFactory()


@contextmanager
def another_transaction():
    """Yield a cursor on another connection, and commit its transaction at the end."""
    other = connection.copy()
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            yield cursor
        other.commit()
    finally:
        other.close()


def happen(booking, kind=BookingEvent.Type.CREATED):
    return events.record(booking, kind, actor=None, at=timezone.now())


def write(cursor, booking, pk=None):
    """Write an event, by default with an id of this moment, and return its id."""
    cursor.execute(WRITE, [pk, booking.calendar_id, booking.pk])
    return cursor.fetchone()[0]


def in_an_hour():
    """Return an id from a clock that is an hour ahead."""
    # A millisecond has 4096 ticks.
    return ask("SELECT uuid7(uuid7_ticks(uuid7()) + 4096 * 3600000::bigint)")


def cursor_of(*steps):
    """Return a cursor with these steps, one for each server; see `positions.Step`."""
    return _encode(EventPagination.STEPS, {"steps": [[*step] for step in steps]}, backwards=False)


def read(admin, query=""):
    """Wait until the feed can show all events, and return a page of it."""
    settle()
    return admin.get(query if query.startswith("http") else f"/events{query}").json()


def poll(admin, cursor="", **query):
    """Return the ids of the events on a page, and the cursor to continue from."""
    settle()
    return poll_at_once(admin, cursor, **query)


def poll_at_once(admin, cursor="", **query):
    """Do the same as `poll`, without waiting for open transactions."""
    page = admin.get("/events", {"cursor": cursor, **query}).json()
    assert list(page) == ["next", "previous", "cursor", "results"]
    assert page["previous"] is None
    return [UUID(each["id"]) for each in page["results"]], page["cursor"]


# --- order --------------------------------------------------------------------------------------


def test_a_reader_gets_an_event_with_a_lower_id_that_is_committed_later(admin, booking):
    lower = ask("SELECT uuid7()")
    with another_transaction() as other:
        higher = happen(booking)
        seen, cursor = poll(admin)
        assert seen == [higher.pk]
        write(other, BookingFactory(), lower)
    assert lower < higher.pk

    # Control: a reader that only asks for higher ids misses the event.
    assert not BookingEvent.objects.filter(pk__gt=seen[-1]).exists()
    assert poll(admin, cursor)[0] == [lower]


@pytest.mark.one_server("on a cluster, the transaction ids come from different servers")
def test_events_of_one_booking_are_in_order_even_if_their_transactions_are_not(admin, booking):
    with another_transaction() as first:
        first.execute("SELECT pg_current_xact_id()")
        # The transaction of `happen` begins after the other transaction and commits before it.
        confirmed = happen(booking, BookingEvent.Type.CONFIRMED)
        moved = write(first, booking)
    by_transaction = BookingEvent.objects.order_by("transaction").values_list("pk", flat=True)
    # Control: the order of the transactions is not the order of the events.
    assert [*by_transaction] == [moved, confirmed.pk]
    assert poll(admin)[0] == [confirmed.pk, moved]


def test_events_of_one_booking_in_one_transaction_are_in_order(admin, booking):
    kinds = [BookingEvent.Type.CREATED, BookingEvent.Type.CONFIRMED, BookingEvent.Type.CANCELLED]
    with transaction.atomic():
        happened = [happen(booking, kind).pk for kind in kinds]
    assert poll(admin)[0] == happened


def test_events_of_one_booking_in_one_statement_are_in_order(admin, booking):
    BookingEvent.objects.bulk_create(
        BookingEvent(
            calendar=booking.calendar,
            booking=booking,
            type=BookingEvent.Type.CONFIRMED,
            at=timezone.now(),
            data={**events.state(booking), "seat": number},
        )
        for number in range(200)
    )
    happened = [*BookingEvent.objects.order_by("id")]
    assert [each.data["seat"] for each in happened] == [*range(200)]
    assert poll(admin, limit=100)[0] == [each.pk for each in happened[:100]]


def test_the_order_of_events_does_not_depend_on_the_clocks_of_web_hosts(admin, booking):
    now = timezone.now()

    def happen_behind(kind, hours):
        """Write an event on a host whose clock is behind by a number of hours."""
        return events.record(booking, kind, actor=None, at=now - timedelta(hours=hours))

    created = happen_behind(BookingEvent.Type.CREATED, 0)
    confirmed = happen_behind(BookingEvent.Type.CONFIRMED, 1)
    history = admin.get(f"/bookings/{booking.pk}/history").json()["results"]
    assert [each["type"] for each in history] == ["booking.created", "booking.confirmed"]
    assert poll(admin)[0] == [created.pk, confirmed.pk]
    assert [*BookingEvent.objects.order_by("at")] == [created, confirmed]
    # Control: without the trigger, the order of the times is not the order of the events.
    with disabled_trigger("bookings_bookingevent", "booking_event_joins_history"):
        cancelled = happen_behind(BookingEvent.Type.CANCELLED, 2)
    assert poll(admin)[0] == [created.pk, confirmed.pk, cancelled.pk]
    assert [*BookingEvent.objects.order_by("at")] == [cancelled, created, confirmed]


def test_times_are_in_the_order_in_which_requests_locked_the_booking(admin):
    """The request that began first can be the last to lock the booking."""
    actor, now = AdminFactory(), timezone.now()

    def cancel_behind_confirmation():
        """Cancel a booking as of now, while a later request confirms it. Return the timestamps."""
        booking = BookingFactory(status=Booking.Status.PENDING)
        by = {"booking_id": booking.pk, "actor": actor}
        behind_a_rival(
            [lambda: change_status(status="cancelled", at=now, **by)],
            rival=lambda: change_status(status="confirmed", at=now + timedelta(seconds=1), **by),
            end=transaction.commit,
        )
        settle()
        page = admin.get("/events").json()["results"]
        found = [each for each in page if each["data"]["id"] == str(booking.pk)]
        assert [each["type"] for each in found] == ["booking.confirmed", "booking.cancelled"]
        return [parse_datetime(each["timestamp"]) for each in found]

    confirmed, cancelled = cancel_behind_confirmation()
    assert now < confirmed < cancelled
    # Control: without the trigger, the time of the second event is earlier.
    with disabled_trigger("bookings_bookingevent", "booking_event_joins_history"):
        confirmed, cancelled = cancel_behind_confirmation()
    assert now == cancelled < confirmed


def test_events_of_one_booking_stay_in_order_if_the_clock_of_postgresql_was_ahead(admin, booking):
    with connection.cursor() as cursor:
        ahead = write(cursor, booking, in_an_hour())
    corrected = happen(booking, BookingEvent.Type.CONFIRMED).pk
    assert poll(admin)[0] == [*booking.events.values_list("pk", flat=True)] == [ahead, corrected]
    # Control: without the trigger, the later event comes first.
    with disabled_trigger("bookings_bookingevent", "booking_event_joins_history"):
        last = happen(booking, BookingEvent.Type.CANCELLED).pk
    assert poll(admin)[0] == [last, ahead, corrected]


def test_events_are_in_the_order_in_which_their_booking_was_locked(admin, booking):
    """An id from before the lock is replaced if an earlier event has a higher id."""
    read_early = ask("SELECT uuid7()")
    with another_transaction() as first:
        first.execute(LOCK, [booking.calendar_id, booking.pk])
        confirmed = write(first, booking)
    with another_transaction() as second:
        second.execute(LOCK, [booking.calendar_id, booking.pk])
        cancelled = write(second, booking, read_early)
    # Control: the id that was made before the lock is lower.
    assert read_early < confirmed < cancelled
    assert poll(admin)[0] == [confirmed, cancelled]


def test_events_that_are_written_during_paging_come_last(admin, booking):
    happened = [happen(booking).pk for _ in range(3)]
    seen, cursor = poll(admin, limit=2)
    happened.append(happen(booking).pk)
    more, cursor = poll(admin, cursor, limit=2)
    rest, cursor = poll(admin, cursor, limit=2)
    assert seen + more + rest == happened
    assert poll(admin, cursor)[0] == []


@pytest.mark.one_server("expects a cursor with one step")
def test_a_cursor_of_a_transaction_that_the_server_has_not_reached_is_refused(admin, booking):
    """Clients can have such a cursor after PostgreSQL's files are restored from an older copy."""
    step = Step(low=10**15, high=0, last=None, server=10**15)
    cursor = cursor_of(step)
    problem(admin.get("/events", {"cursor": cursor}), 400, "validation_error", "cursor")


@pytest.mark.one_server("expects a cursor with one step")
def test_on_one_server_a_cursor_must_have_exactly_one_step(admin, booking):
    event = happen(booking)
    step = Step(low=LOWEST, high=0, last=None, server=0)
    assert poll(admin, cursor_of(step))[0] == [event.pk]
    for cursor in (cursor_of(step, step), cursor_of()):
        problem(admin.get("/events", {"cursor": cursor}), 400, "validation_error", "cursor")


def test_events_are_not_shown_while_an_older_transaction_is_open(admin, booking):
    with another_transaction() as other:
        lower = write(other, booking)
        higher = happen(booking)
        seen, cursor = poll_at_once(admin)
        assert seen == [], "the other transaction is still open"
    assert poll(admin, cursor)[0] == [lower, higher.pk]
    assert poll(admin)[0] == [lower, higher.pk]


def test_events_that_are_rolled_back_are_not_shown_and_do_not_block_other_events(admin, booking):
    # Both events are on one calendar: on a cluster, an open transaction hides only the events on
    # the servers to which it writes.
    later = booking.start_time + timedelta(days=1)
    unrelated = BookingFactory(service=booking.service, start_time=later)
    with another_transaction() as other:
        write(other, unrelated)
        event = happen(booking)
        assert poll_at_once(admin)[0] == []
        other.connection.rollback()
    assert poll(admin)[0] == [event.pk]


def test_paging_returns_each_event_once_while_more_events_are_written(admin, booking):
    written = [happen(booking).pk for _ in range(5)]
    met, cursor = [], ""
    for _ in range(8):
        page, cursor = poll(admin, cursor, limit=2)
        met += page
        if len(written) < 9:
            written.append(happen(booking).pk)
    assert met == written


def test_the_last_page_has_a_cursor_from_which_polling_continues(admin, booking):
    happened = [happen(booking).pk for _ in range(3)]
    first = read(admin, "?limit=2")
    assert [UUID(each["id"]) for each in first["results"]] == happened[:2]
    last = read(admin, first["next"])
    assert [UUID(each["id"]) for each in last["results"]] == happened[2:]
    # This page ends at the horizon of the first page. If a transaction of another test has moved
    # the horizon since then, the page has a next page, which is empty.
    while last["next"]:
        last = read(admin, last["next"])
        assert last["results"] == []
    for _ in range(2):
        seen, cursor = poll(admin, last["cursor"])
        assert seen == []
    event = happen(booking)
    assert poll(admin, last["cursor"])[0] == poll(admin, cursor)[0] == [event.pk]


def test_a_page_that_is_exactly_full_can_be_the_last_one(admin, booking):
    happened = [happen(booking).pk for _ in range(2)]
    page = read(admin, "?limit=2")
    assert [UUID(each["id"]) for each in page["results"]] == happened
    assert page["next"] is None


# --- content ------------------------------------------------------------------------------------


def test_an_event_of_a_booking_shows_the_booking_as_the_api_shows_it(admin):
    user = UserFactory()
    booking = BookingFactory(user=user, status=Booking.Status.CONFIRMED)
    admin.patch(f"/bookings/{booking.pk}/status", {"status": "completed"})
    shown = admin.get(f"/bookings/{booking.pk}").json()
    [event] = read(admin)["results"]
    assert event == {
        "id": str(BookingEvent.objects.get().pk),
        "type": "booking.completed",
        "timestamp": shown["updated_at"],
        "data": shown,
    }


def test_an_event_of_a_review_shows_the_review_as_the_api_shows_it(api, admin):
    user = UserFactory()
    booking = BookingFactory(user=user, status=Booking.Status.COMPLETED)
    body = {"booking_id": str(booking.pk), "rating": 4, "comment": "Fine."}
    review = api.as_(user).post("/reviews", body).json()
    [event] = read(admin, "?type=review.created")["results"]
    assert event["data"] == review
    assert event["timestamp"] == review["created_at"]

    api.as_(user).patch(f"/reviews/{review['id']}", {"rating": 1, "comment": "Not fine."})
    [event] = read(admin)["results"]
    # The rating and `updated_at` are those of the event, so a copy with the rating 1 is newer.
    assert event["data"] == {**review, "comment": "Not fine."}

    api.as_(user).delete(f"/reviews/{review['id']}")
    [event] = read(admin)["results"]
    assert event["data"] == {"id": review["id"], "booking_id": str(booking.pk), "rating": 4}


def apply(page, copy):
    """Apply a page of events to a copy of the bookings, as `docs/clients.md` says."""
    for event in page["results"]:
        if "user_id" in event["data"]:
            copy[event["data"]["id"]] = event["data"]
        else:
            copy.pop(event["data"]["id"], None)


def test_a_copy_that_follows_the_events_lacks_only_what_the_documents_name(api, admin):
    """`docs/clients.md`, "Keeping a copy"."""
    service = ServiceFactory(capacity=9)

    def book(hours, **more):
        start = (TUESDAY + timedelta(hours=hours)).isoformat()
        body = {"service_id": str(service.pk), "start_time": start, **more}
        return user.post("/bookings", body).json()["id"]

    def change(booking, **changes):
        assert admin.patch(f"/bookings/{booking}", changes).status_code == 200

    def listed():
        return {row["id"]: row for row in admin.get("/bookings?cursor=").json()["results"]}

    user = api.as_(UserFactory())
    moved, cancelled, deleted, gone, described = [book(hours) for hours in range(5)]
    change(gone, status="completed")
    cursor = read(admin)["cursor"]
    copy = listed()

    change(moved, start_time=(TUESDAY + timedelta(days=1)).isoformat())
    change(moved, status="confirmed")
    change(cancelled, status="cancelled", reason="Ill.")
    for booking in (deleted, gone):
        assert admin.delete(f"/bookings/{booking}").status_code == 204
    change(described, notes="By the window.")
    held, booked = [book(hours, hold=True) for hours in (6, 7)]
    change(booked, status="pending")
    page = read(admin, f"?cursor={cursor}")
    apply(page, copy)
    apply(page, copy)  # Applying a page again changes nothing.

    stored = listed()
    assert copy.keys() - stored.keys() == {gone}
    assert stored.keys() - copy.keys() == {held}
    assert {key for key in copy.keys() & stored.keys() if copy[key] != stored[key]} == {described}
    assert deleted not in copy


def test_a_review_that_is_refused_leaves_no_event(api, admin):
    booking = BookingFactory(status=Booking.Status.COMPLETED)
    client = api.as_(booking.user)
    body = {"booking_id": str(booking.pk), "rating": 4}
    assert client.post("/reviews", body).status_code == 201
    problem(client.post("/reviews", body), 409, "review_exists")
    assert len(poll(admin)[0]) == 1


def test_webhooks_receive_reviews(api):
    WebhookFactory(events=["review.created"])
    booking = BookingFactory(status=Booking.Status.COMPLETED)
    api.as_(booking.user).post("/reviews", {"booking_id": str(booking.pk), "rating": 4})
    follow_events_up([BookingEvent.objects.get().pk], at=timezone.now())
    [delivery] = Webhook.objects.get().deliveries.all()
    assert delivery.type == "review.created"


def test_the_list_contains_only_event_types_of_webhooks_and_can_be_filtered_by_type(admin, booking):
    for kind in (
        BookingEvent.Type.HELD,
        BookingEvent.Type.REMINDED,
        BookingEvent.Type.DELETED,
    ):
        happen(booking, kind)
    made = happen(booking)
    cancelled = happen(booking, BookingEvent.Type.CANCELLED)
    assert poll(admin)[0] == [made.pk, cancelled.pk]
    assert poll(admin, type="booking.cancelled,review.created")[0] == [cancelled.pk]


def test_times_are_in_the_requested_time_zone(admin, booking):
    happen(booking)
    [event] = read(admin, "?tz=Asia/Tokyo")["results"]
    assert event["timestamp"].endswith("+09:00")
    assert event["data"]["start_time"] == "2999-01-01T19:00:00+09:00"


@pytest.mark.one_server("counts statements, and a cluster needs more of them")
def test_the_feed_takes_four_queries_for_any_number_of_events(
    admin, booking, django_assert_num_queries
):
    happen(booking)
    # One query each for the user, the oldest open transaction, the events and their bookings.
    settle()
    with django_assert_num_queries(4):
        poll_at_once(admin)
    for _ in range(5):
        happen(BookingFactory())
    settle()
    with django_assert_num_queries(4):
        assert len(poll_at_once(admin)[0]) == 6


@pytest.mark.parametrize("cursor", ["x", "WzEsMl0", "%00", "1:2", "a" * 5000])
def test_a_made_up_cursor_is_refused(admin, cursor):
    problem(admin.get(f"/events?cursor={cursor}"), 400, "validation_error", "cursor")


def test_a_cursor_from_another_list_is_refused(admin):
    BookingFactory.create_batch(2)
    other = admin.get("/bookings?cursor=&limit=1").json()["next"]
    cursor = other.partition("cursor=")[2].partition("&")[0]
    problem(admin.get(f"/events?cursor={cursor}"), 400, "validation_error", "cursor")
