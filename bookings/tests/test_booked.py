"""The calendars on which users have booked. Only a distributed database stores them."""

from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from accounts.privacy.services import erase_user
from accounts.tests.factories import AdminFactory, UserFactory
from bookings import booked, services
from bookings.booked import FILL, own_bookings, remember_all_calendars, remember_calendar
from bookings.models import BookedCalendar
from bookings.tests.factories import TUESDAY, BookingFactory
from catalog.tests.factories import ServiceFactory

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def distributed(monkeypatch):
    """Let `bookings.booked` behave as if the rows were on several servers."""
    monkeypatch.setattr(booked, "is_distributed", lambda: True)


def known(user):
    return {row.calendar_id for row in BookedCalendar.objects.filter(user=user)}


def ids(bookings):
    return {row["id"] for row in bookings.ordered(("id",))[:100]}


def book(user, service, hours):
    return services.create_booking(
        actor=user,
        service_id=service.pk,
        start_time=TUESDAY + timedelta(hours=hours),
        at=timezone.now(),
    )


@pytest.mark.one_server("on a cluster, the calendars are stored")
def test_a_database_on_one_server_stores_no_booked_calendars():
    user = UserFactory()
    booking = book(user, ServiceFactory(), 1)
    assert known(user) == set()
    assert ids(own_bookings(user.pk)) == {booking.pk}


def test_a_calendar_with_several_bookings_of_a_user_is_stored_once(distributed):
    user, service = UserFactory(), ServiceFactory()
    made = {book(user, service, hours).pk for hours in range(3)}
    assert known(user) == {service.calendar_id}
    assert BookedCalendar.objects.count() == 1
    assert ids(own_bookings(user.pk)) == made


@pytest.mark.one_server("on a cluster, factories store the calendars, too")
def test_only_known_calendars_are_searched(distributed):
    user = UserFactory()
    first, second = BookingFactory(user=user), BookingFactory(user=user)
    BookingFactory(service=first.service, start_time=TUESDAY + timedelta(days=1))
    assert ids(own_bookings(user.pk)) == set()
    remember_calendar(user_id=user.pk, calendar_id=first.calendar_id)
    assert ids(own_bookings(user.pk)) == {first.pk}
    remember_calendar(user_id=user.pk, calendar_id=second.calendar_id)
    assert ids(own_bookings(user.pk)) == {first.pk, second.pk}


def test_all_calendars_are_searched_if_a_user_has_booked_on_many(distributed, monkeypatch):
    monkeypatch.setattr(booked, "MAX_CALENDARS", 1)
    user = UserFactory()
    bookings = [BookingFactory(user=user) for _ in range(3)]
    for booking in bookings[:2]:
        remember_calendar(user_id=user.pk, calendar_id=booking.calendar_id)
    assert ids(own_bookings(user.pk)) == {booking.pk for booking in bookings}


def test_fill_stores_the_calendars_of_all_bookings_once():
    user = UserFactory()
    bookings = [BookingFactory(user=user) for _ in range(2)]
    BookingFactory()
    for _time in range(2):
        with connection.cursor() as cursor:
            cursor.execute(FILL)
    assert known(user) == {booking.calendar_id for booking in bookings}
    assert BookedCalendar.objects.count() == 3


def test_a_hold_that_staff_book_for_a_caller_is_in_the_bookings_of_the_caller(distributed):
    staff, caller = AdminFactory(), UserFactory()
    service = ServiceFactory()
    hold = services.create_booking(
        actor=staff, service_id=service.pk, start_time=TUESDAY, hold=True, at=timezone.now()
    )
    assert ids(own_bookings(staff.pk)) == {hold.pk}
    booking = services.book_hold_for(
        booking_id=hold.pk, user=caller, actor=staff, at=timezone.now(), attendee={}, notes=""
    )
    assert ids(own_bookings(caller.pk)) == {booking.pk}


def test_the_calendars_of_a_deleted_account_are_forgotten(distributed):
    user = UserFactory()
    book(user, ServiceFactory(), 1)
    erase_user(user_id=user.pk, actor=AdminFactory(), at=timezone.now())
    assert known(user) == set()
    remember_all_calendars()
    assert known(user) == set()


def test_the_calendars_of_bookings_that_were_stored_directly_are_remembered(distributed):
    user = UserFactory()
    booking = BookingFactory(user=user)
    remember_all_calendars()
    assert known(user) == {booking.calendar_id}
