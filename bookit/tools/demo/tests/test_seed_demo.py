"""The demo town has services and bookings of every kind, and its bookings follow all rules."""

import hashlib
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from itertools import pairwise
from time import process_time
from types import SimpleNamespace
from unittest.mock import patch
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.password_validation import validate_password
from django.core.management import CommandError, call_command
from django.db import transaction

from accounts.models import User
from accounts.tests.factories import UserFactory
from bookings.availability.search import search
from bookings.availability.terms import terms_of
from bookings.models import Booking, BookingEvent, Slot
from bookings.transitions import TRANSITIONS
from bookit.tools.demo.fill import fill_with_demo
from bookit.tools.demo.reader import read_town
from bookit.tools.management.commands.seed_demo import Command
from catalog.models import Calendar, OpeningHours, Service, TimeOff
from catalog.tests.factories import ServiceFactory
from reviews.models import Review

# pytest-django creates the database only if the tests that run need one.
pytestmark = pytest.mark.django_db

Status = Booking.Status

LISBON = ZoneInfo("Europe/Lisbon")
SATURDAY = datetime(2026, 11, 21, 9, 40, tzinfo=UTC)
MOMENTS = [
    SATURDAY,
    datetime(2026, 12, 26, 23, 59, 59, tzinfo=UTC),  # the last second of a day
    datetime(2027, 3, 28, 0, 59, tzinfo=UTC),  # a minute before the clocks go forward
]
TOWN = read_town()
ACCOUNTS = Command().accounts


def fill(at=SATURDAY):
    fill_with_demo(TOWN, at=at, say=lambda line: None)


def seed(**options):
    """Run the command as if from a terminal, and return its output."""
    out = StringIO()
    command = Command(stdout=out)
    command._called_from_command_line = True
    call_command(command, **options)
    return out.getvalue()


def digest():
    """Return a hash of the rows of the town.

    The hash leaves out the ids of slots, opening hours, time off and events, because each run gives
    them new ids.
    """
    rows = [
        *User.objects.order_by("id").values_list(
            *("id", "name", "email", "phone", "role", "language", "timezone", "created_at")
        ),
        *Calendar.objects.order_by("id").values_list(
            *("id", "name", "timezone", "provider_id", "created_at")
        ),
        *OpeningHours.objects.order_by("calendar_id", "weekday", "opens").values_list(
            "calendar_id", "weekday", "opens", "closes"
        ),
        *TimeOff.objects.order_by("calendar_id", "start_time").values_list(
            "calendar_id", "start_time", "end_time", "reason", "created_at"
        ),
        *Service.objects.order_by("id").values_list(
            *("id", "title", "description", "category", "price", "currency", "duration_minutes"),
            *("capacity", "mode", "is_active", "rating_sum", "rating_count", "created_at"),
        ),
        *Slot.objects.order_by("service_id", "start_time").values_list(
            "service_id", "start_time", "capacity", "status", "created_at"
        ),
        *Booking.objects.order_by("id").values_list(
            *("id", "user_id", "service_id", "slot__start_time", "seat", "start_time", "status"),
            *("end_time", "price", "currency", "attendee_name", "attendee_email", "notes"),
            *("cancellation_reason", "created_at", "updated_at"),
        ),
        *(
            (event.booking_id, event.type, event.at, {**event.data, "slot_id": None})
            for event in BookingEvent.objects.order_by("id")
        ),
        *Review.objects.order_by("id").values_list(
            "id", "booking_id", "rating", "comment", "created_at"
        ),
    ]
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def seen_at(at):
    """Return the town as it is at `at`, and leave the database empty."""
    with transaction.atomic():
        fill(at)
        services = list(Service.objects.all())
        ids = [service.pk for service in services]
        town = SimpleNamespace(
            at=at,
            users=list(User.objects.all()),
            calendars=list(Calendar.objects.select_related("provider")),
            time_off=list(TimeOff.objects.all()),
            services=services,
            slots=list(Slot.objects.select_related("service")),
            terms=terms_of(ids, at - timedelta(days=30)),
            offered=search(ids, at, at + timedelta(days=60), at=at),
            bookings=list(
                Booking.objects.select_related("service", "user", "calendar__provider", "slot")
            ),
            histories=defaultdict(list),
            review_events=[],
            reviews=list(Review.objects.select_related("booking")),
            digest=digest(),
        )
        for event in BookingEvent.objects.order_by("id"):
            if event.type == BookingEvent.Type.REVIEWED:
                town.review_events.append(event)
            else:
                town.histories[event.booking_id].append(event)
        transaction.set_rollback(True)
    return town


# The town is filled only once for each moment, because most tests only read it.
@pytest.fixture(scope="module", params=MOMENTS, ids=str)
def town(request, django_db_setup, django_db_blocker):
    with django_db_blocker.unblock():
        return seen_at(request.param)


def test_the_town_has_some_of_everything(town):
    states = Counter(booking.status for booking in town.bookings)
    assert set(states) == set(Status)
    assert states.most_common(1)[0][0] == Status.COMPLETED
    assert 500 < states.total() < 1500
    assert 25 <= len(town.services) <= 40
    assert all(service.category for service in town.services)
    assert sum(not service.is_active for service in town.services) == 1
    assert sum(service.capacity == 12 for service in town.services) == 2
    assert sum(user.role == "user" for user in town.users) == 60
    assert all(user.email.endswith("@example.com") for user in town.users)
    assert all(calendar.provider.role == "provider" for calendar in town.calendars)
    comments = Counter(review.comment for review in town.reviews)
    assert comments.pop("") > 10
    assert len(comments) > 50
    assert set(comments.values()) == {1}


def test_the_town_has_services_of_every_kind_with_times_to_book(town):
    kinds = Counter((service.mode, service.capacity > 1) for service in town.services)
    assert kinds["open", False] > 15
    assert kinds["open", True] >= 1
    assert kinds["slots", False] == 3
    assert kinds["slots", True] >= 5
    ahead = Counter(slot.service_id for slot in town.slots if slot.start_time > town.at)
    for service in town.services:
        if service.mode == "slots" and service.is_active:
            assert ahead[service.pk] >= 5
        if service.is_active:
            assert list(town.offered.free_times(town.terms[service.pk]))
    # Some calendar is open past midnight, and not only until midnight.
    assert any(
        start.astimezone(LISBON).date() < (end - timedelta(minutes=1)).astimezone(LISBON).date()
        for terms in town.terms.values()
        for start, end in terms.opening.periods(town.at, town.at + timedelta(days=7))
    )


def test_one_upcoming_class_is_full_and_a_seat_of_the_next_one_is_held(town):
    taken = Counter(booking.slot_id for booking in town.bookings if booking.active)
    vinyasa = sorted(
        (slot for slot in town.slots if slot.service.title == "Vinyasa Yoga"),
        key=lambda slot: slot.start_time,
    )
    full, scarce = [slot for slot in vinyasa if slot.start_time > town.at + timedelta(days=1)][:2]
    assert (taken[full.pk], taken[scarce.pk]) == (12, 10)
    [hold] = [booking for booking in town.bookings if booking.status == Status.HELD]
    assert hold.slot == scarce
    assert hold.created_at <= town.at < hold.hold_expires_at


def test_a_provider_has_a_week_off_and_slots_during_time_off_are_cancelled(town):
    lengths = [off.end_time - off.start_time for off in town.time_off]
    # A week in which the clocks go forward is an hour shorter.
    assert max(lengths) >= timedelta(days=6, hours=23)
    cancelled = {slot.pk for slot in town.slots if slot.status == "cancelled"}
    assert cancelled
    for slot in town.slots:
        opening = town.terms[slot.service_id].opening
        assert opening.is_off(slot.start_time, slot.end_time) == (slot.pk in cancelled)


def test_the_history_of_every_booking_ends_in_its_status(town):
    for booking in town.bookings:
        history = town.histories[booking.pk]
        first, last = history[0], history[-1]
        assert first.type in ("booking.created", "booking.held")
        assert (first.type == "booking.held") == (booking.status == Status.HELD)
        assert first.at == booking.created_at
        assert first.actor_id == booking.user_id
        assert last.at == booking.updated_at <= town.at
        assert last.data["status"] == booking.status
        assert last.data["seat"] == booking.seat
        assert last.data["start_time"] == booking.start_time.isoformat()
        for before, after in pairwise(history):
            assert before.at <= after.at
            if after.type == "booking.rescheduled":
                assert after.data["status"] == before.data["status"]
                assert after.data["was"]["start_time"] == before.data["start_time"]
            else:
                assert after.type == f"booking.{after.data['status']}"
                assert after.data["status"] in TRANSITIONS[before.data["status"]]
                assert after.data["was"] == {"status": before.data["status"]}


def test_the_status_of_each_booking_fits_its_time(town):
    for booking in town.bookings:
        if booking.status in (Status.PENDING, Status.HELD):
            assert booking.start_time > town.at
        elif booking.status == Status.CONFIRMED:
            # Bookings are completed once a minute, so this one can be up to a minute late.
            assert booking.end_time > town.at - timedelta(minutes=1)
        elif booking.status != Status.CANCELLED:
            assert booking.end_time <= town.at


def test_every_booking_is_in_a_slot_or_on_the_grid_of_its_opening_hours(town):
    for booking in town.bookings:
        terms, slot = town.terms[booking.service_id], booking.slot
        assert booking.end_time - booking.start_time == terms.duration
        assert terms.opening.contains(booking.start_time, booking.end_time)
        if booking.service.mode == "slots":
            assert slot.start_time == booking.start_time
            assert slot.created_at < booking.created_at
            assert booking.seat <= slot.capacity
            assert slot.status == "scheduled"
        else:
            assert slot is None
            assert any(
                opens <= booking.start_time
                and booking.end_time <= closes
                and (booking.start_time - opens) % terms.step == timedelta(0)
                for opens, closes in terms.opening.periods(booking.start_time, booking.end_time)
            )


def test_every_booking_follows_the_rules_of_its_service(town):
    for booking in town.bookings:
        service = booking.service
        ahead = booking.start_time - booking.created_at
        assert timedelta(minutes=service.min_notice_minutes) <= ahead
        if service.max_advance_days is not None:
            assert ahead <= timedelta(days=service.max_advance_days)
        assert max(booking.user.created_at, service.created_at) < booking.created_at
        assert (booking.price, booking.currency) == (service.price, "EUR")
        assert 1 <= booking.seat <= service.capacity


def test_no_customer_is_in_two_places_at_once(town):
    periods = defaultdict(list)
    for booking in town.bookings:
        if booking.active:
            periods[booking.user_id].append((booking.start_time, booking.end_time))
    for taken in periods.values():
        assert all(before[1] <= after[0] for before, after in pairwise(sorted(taken)))


def test_the_days_between_visits_are_days_of_the_towns_time_zone():
    tz = ZoneInfo("Asia/Tokyo")
    town = replace(TOWN, settings=replace(TOWN.settings, timezone=tz))
    fill_with_demo(town, at=SATURDAY, say=lambda line: None)
    # Full sessions, and bookings for providers to confirm, need only one day between visits.
    strict = {
        calendar.name: calendar.days_between_visits
        for calendar in TOWN.calendars
        if not any(
            service.next_session_full or service.requires_confirmation is not False
            for service in calendar.services
        )
    }
    visits = defaultdict(list)
    for booking in Booking.objects.filter(calendar__name__in=strict).select_related("calendar"):
        day = booking.start_time.astimezone(tz).date()
        visits[booking.calendar.name, booking.user_id].append(day)
    assert len(visits) > 50
    for (name, _), days in visits.items():
        for before, after in pairwise(sorted(days)):
            assert (after - before).days >= strict[name]


def test_the_ratings_of_a_service_match_its_reviews(town):
    ratings = defaultdict(list)
    for review in town.reviews:
        ratings[review.service_id].append(review.rating)
    for service in town.services:
        assert service.rating_sum == sum(ratings[service.pk])
        assert service.rating_count == len(ratings[service.pk])


def test_customers_review_their_completed_bookings_only(town):
    for review in town.reviews:
        assert review.booking.status == Status.COMPLETED
        assert review.user_id == review.booking.user_id
        assert review.service_id == review.booking.service_id
        assert review.booking.end_time < review.created_at < town.at


def test_the_event_of_a_review_follows_the_completion_of_its_booking(town):
    events = {event.data["review_id"]: event for event in town.review_events}
    assert len(events) == len(town.review_events) == len(town.reviews)
    for review in town.reviews:
        event, completed = events[str(review.pk)], town.histories[review.booking_id][-1]
        assert (event.booking_id, event.calendar_id) == (review.booking_id, review.calendar_id)
        assert (event.actor_id, event.at) == (review.user_id, review.created_at)
        assert completed.at < event.at
        assert completed.pk < event.pk
        before = {name: value for name, value in completed.data.items() if name != "was"}
        assert event.data == {**before, "review_id": str(review.pk), "rating": review.rating}


def test_a_customer_and_two_providers_have_bookings_to_act_on(town):
    of_ana = [booking for booking in town.bookings if booking.user.email == "ana@example.com"]
    reviewed = {review.booking_id for review in town.reviews}
    assert any(booking.status == Status.PENDING for booking in of_ana)
    assert any(booking.status == Status.CONFIRMED for booking in of_ana)
    assert any(
        booking.status == Status.COMPLETED and booking.pk not in reviewed for booking in of_ana
    )
    providers_with_requests = {
        booking.calendar.provider.email
        for booking in town.bookings
        if booking.status == Status.PENDING
    }
    assert {"rui@example.com", "beatriz@example.com"} <= providers_with_requests


def test_the_same_moment_gives_the_same_town(town):
    assert seen_at(town.at).digest == town.digest


def test_a_second_run_changes_nothing_and_says_so():
    first = seed()
    stages = [line.split(":")[0] for line in first.splitlines()[:6]]
    assert stages == ["People", "Catalog", "Timetable", "Bookings", "Reviews", "Histories"]
    for role, email, password in ACCOUNTS:
        assert f"  {role:<10}{email:<22}{password}\n" in first
    before = digest()
    assert "There are services already." in seed()
    assert digest() == before


def test_a_database_with_a_service_is_not_changed():
    ServiceFactory()
    assert "nothing was changed" in seed()
    assert Service.objects.count() == 1
    assert not Booking.objects.exists()


def test_a_database_with_one_of_the_email_addresses_is_not_changed():
    UserFactory(email="rui@example.com")
    assert "rui@example.com has an account already." in seed()
    assert User.objects.count() == 1


def test_a_failure_stores_nothing():
    with (
        patch.object(Review.objects, "bulk_create", side_effect=RuntimeError),
        pytest.raises(RuntimeError),
    ):
        fill()
    assert not User.objects.exists()
    assert not BookingEvent.objects.exists()


@pytest.mark.real_passwords
def test_seeding_is_quick_and_the_shown_accounts_can_sign_in(api):
    started = process_time()
    seed()
    assert process_time() - started < 10
    assert {role for role, _, _ in ACCOUNTS} == {"admin", "user", "provider"}
    for role, email, password in ACCOUNTS:
        response = api.post("/auth/login", {"email": email, "password": password})
        assert response.status_code == 200
        assert response.json()["role"] == role
        validate_password(password, User.objects.get(email=email))


def test_production_refuses_known_passwords_unless_forced(settings):
    settings.PRODUCTION = True
    with pytest.raises(CommandError, match="known passwords") as refusal:
        seed()
    assert "\n" not in str(refusal.value)
    assert not User.objects.exists()
    assert seed(force=True, verbosity=0) == ""
    assert User.objects.exists()
