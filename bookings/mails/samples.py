"""Samples for previews: events of a made-up booking that cause emails, and ended waitlists."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.utils.translation import get_language

from bookings.mails.composition import Mail, compose, compose_farewell
from bookings.mails.models import MailText
from bookings.mails.occasions import FORMER, Occasion, Status, Type
from bookings.mails.waitlist import Place, compose_end
from bookit.languages import SOURCE

START = datetime(2026, 12, 1, 10, tzinfo=UTC)
BOOKED = Occasion(
    event_id=UUID(int=1),
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
    is_handover=False,
    handover_id=None,
    handed_over_at=None,
    was_handed_over=False,
    calendar_id=UUID(int=1),
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
    language="en",
    user_is_active=True,
    user_is_verified=True,
    provider_id=UUID(int=2),
    provider_name="Helena Costa",
    provider_email="helena@example.com",
    provider_timezone="Europe/Paris",
    provider_language="en",
    cancellation_notice_minutes=24 * 60,
)
OCCASIONS = {
    "requested": replace(BOOKED, status=Status.PENDING),
    "booked": BOOKED,
    "confirmed": replace(BOOKED, type=Type.CONFIRMED),
    "moved": replace(
        BOOKED,
        type=Type.RESCHEDULED,
        was_start_time=START - timedelta(days=1),
        was_end_time=BOOKED.end_time - timedelta(days=1),
    ),
    "cancelled": replace(
        BOOKED,
        type=Type.CANCELLED,
        status=Status.CANCELLED,
        reason="Helena is ill. She is sorry, and back on Thursday.",
    ),
    "cancelled-by-the-user": replace(
        BOOKED,
        type=Type.CANCELLED,
        actor_id=BOOKED.user_id,
        status=Status.CANCELLED,
        reason="I have to work that day.",
    ),
    "handed-over": replace(
        BOOKED, type=Type.CHANGED, is_handover=True, attendee_email="rui@example.com"
    ),
    "not-confirmed": replace(BOOKED, type=Type.EXPIRED, status=Status.EXPIRED),
    "reminder": replace(BOOKED, type=Type.REMINDED, at=START - timedelta(days=2)),
    "seat-offered": replace(
        BOOKED,
        type=Type.HELD,
        status=Status.HELD,
        is_offer=True,
        hold_expires_at=START - timedelta(days=1),
        notes="",
        title="Morning yoga",
        calendar_name="Studio 2",
    ),
}
OCCASIONS["seat-passed-on"] = replace(
    OCCASIONS["seat-offered"], type=Type.EXPIRED, status=Status.EXPIRED, is_announced=False
)
OCCASIONS["seat-withdrawn"] = replace(
    OCCASIONS["seat-offered"],
    type=Type.CANCELLED,
    status=Status.CANCELLED,
    is_announced=False,
    reason="Helena is ill. She is sorry, and back on Thursday.",
)
PLACE = Place(
    entry_id=UUID(int=3),
    user_name="Ana Silva",
    user_email="ana@example.com",
    user_timezone="Europe/Lisbon",
    user_language="en",
    user_is_verified=True,
    title="Morning yoga",
    calendar_name="Studio 2",
    start_time=START,
    end_time=START + timedelta(minutes=60),
    is_cancelled=False,
)
PLACES = {"queue-ended": PLACE, "queue-cancelled": replace(PLACE, is_cancelled=True)}


def mail(kind: str, audience: str, texts: Mapping[str, MailText]) -> Mail:
    """Return a sample of an email, in the current language.

    Args:
        kind: a key of `OCCASIONS` or `PLACES`.
        audience: the reader. Emails of the kinds in `PLACES` have only one, so it does not matter.
        texts: the operator's own texts by their keys.
    """
    language = get_language() or SOURCE
    if kind in PLACES:
        return compose_end(replace(PLACES[kind], user_language=language), texts)
    occasion = replace(OCCASIONS[kind], language=language, provider_language=language)
    if audience == FORMER:
        return compose_farewell(occasion, texts)
    return compose(occasion, audience, texts)
