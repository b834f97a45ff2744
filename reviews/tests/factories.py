"""Factories for reviews."""

import factory
from factory.django import DjangoModelFactory

from bookings.models import Booking
from bookings.tests.factories import BookingFactory
from reviews.models import Review


class ReviewFactory(DjangoModelFactory):
    """A five-star review of a completed booking. The totals of the service do not include it."""

    class Meta:
        model = Review

    booking = factory.SubFactory(BookingFactory, status=Booking.Status.COMPLETED)
    calendar = factory.SelfAttribute("booking.calendar")
    service = factory.SelfAttribute("booking.service")
    user = factory.SelfAttribute("booking.user")
    rating = 5
