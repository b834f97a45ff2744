"""Builders of reviews."""

import factory
from factory.django import DjangoModelFactory

from bookings.models import Booking
from bookings.tests.factories import BookingFactory
from reviews.models import Review


class ReviewFactory(DjangoModelFactory):
    """Five stars for a completed booking. They are not added to the ratings of the service."""

    class Meta:
        model = Review

    booking = factory.SubFactory(BookingFactory, status=Booking.Status.COMPLETED)
    service = factory.SelfAttribute("booking.service")
    user = factory.SelfAttribute("booking.user")
    rating = 5
