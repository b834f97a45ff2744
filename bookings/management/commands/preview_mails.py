"""`manage.py preview_mails`: writes a sample of every email about bookings."""

from argparse import ArgumentParser
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management import BaseCommand, CommandError

from bookings.mails.composition import compose
from bookings.mails.occasions import Occasion
from bookings.models import Booking, BookingEvent

Type = BookingEvent.Type
Status = Booking.Status

START = datetime(2026, 12, 1, 10, tzinfo=UTC)
BOOKED = Occasion(
    event_id=1,
    type=Type.CREATED,
    at=START - timedelta(days=10),
    actor_id=UUID(int=1),
    sequence=0,
    status=Status.CONFIRMED,
    start_time=START,
    end_time=START + timedelta(minutes=45),
    hold_expires_at=None,
    is_announced=True,
    was_start_time=None,
    was_end_time=None,
    reason=None,
    is_offer=False,
    is_current=True,
    is_over=False,
    booking_id=UUID("0199d3a4-02aa-7d0c-9b1f-6f0e5b8f2a11"),
    attendee_name="",
    attendee_email="",
    attendee_phone="",
    notes="Short at the sides, please.\nI may be five minutes late.",
    price=Decimal("25.00"),
    currency="EUR",
    title="Haircut",
    calendar_name="Helena's chair",
    user_id=UUID("0199d3a1-7c1e-7f61-b2ab-0a1c5d3f9e10"),
    user_name="Ana Silva",
    user_email="ana@example.com",
    user_phone="+351 912 345 678",
    user_timezone="Europe/Lisbon",
    user_is_active=True,
    user_is_verified=True,
    provider_id=UUID(int=2),
    provider_name="Helena Costa",
    provider_email="helena@example.com",
    provider_timezone="Europe/Paris",
)
OCCASIONS = {
    "requested": replace(BOOKED, status=Status.PENDING),
    "booked": BOOKED,
    "confirmed": replace(BOOKED, type=Type.CONFIRMED),
    "moved": replace(
        BOOKED,
        type=Type.RESCHEDULED,
        was_start_time=START - timedelta(days=1),
        was_end_time=START - timedelta(days=1, minutes=-45),
    ),
    "cancelled": replace(
        BOOKED,
        type=Type.CANCELLED,
        status=Status.CANCELLED,
        reason="Helena is ill. She is sorry, and back on Thursday.",
    ),
    "cancelled-by-the-user": replace(
        BOOKED, type=Type.CANCELLED, status=Status.CANCELLED, reason="I have to work that day."
    ),
    "not-confirmed": replace(BOOKED, type=Type.EXPIRED, status=Status.EXPIRED),
    "reminder": replace(BOOKED, type=Type.REMINDED),
    "seat-offered": replace(
        BOOKED,
        type=Type.HELD,
        status=Status.HELD,
        is_offer=True,
        hold_expires_at=START - timedelta(days=1),
        title="Morning yoga",
        calendar_name="Studio 2",
    ),
}


class Command(BaseCommand):
    """Writes every kind of email about a made-up booking, for every recipient."""

    help = (
        "Write a sample of every kind of booking mail to files (.txt, .html, .ics, and .eml with "
        "all of them), one set for each recipient. No database is needed."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the directory in which the files are written."""
        parser.add_argument("directory", nargs="?", default="mails", type=Path)

    def handle(self, *args: Any, directory: Path, **options: Any) -> None:
        """Write the files."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CommandError(f"Cannot write to {directory}: {error.strerror}.") from None
        for name, occasion in OCCASIONS.items():
            for audience in occasion.audiences:
                mail = compose(occasion, audience)
                file = directory / f"{name}-{audience}"
                file.with_suffix(".txt").write_text(f"{mail.subject}\n\n{mail.text}")
                file.with_suffix(".html").write_text(mail.html)
                file.with_suffix(".eml").write_bytes(mail.message().message().as_bytes())
                if mail.calendar:
                    file.with_suffix(".ics").write_bytes(mail.calendar.encode())
        self.stdout.write(f"The mails are in {directory.resolve()}.")
