"""The bookings app."""

from django.apps import AppConfig


class BookingsConfig(AppConfig):
    """Configuration of the bookings app."""

    name = "bookings"
