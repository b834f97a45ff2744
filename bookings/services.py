"""The rules for bookings: who may book what and when, and how a booking may change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from psycopg.rows import dict_row
from uuid_utils.compat import uuid7

from accounts.models import User
from bookings.availability.search import nearest
from bookings.availability.taken import BookingConflict, SlotFull
from bookings.availability.terms import (
    OutsideOpeningHours,
    ServiceInactive,
    SlotTerms,
    Terms,
    TooFarAhead,
    TooSoon,
    on_current_terms,
    terms_at,
    terms_in,
)
from bookings.booked import live_holds_of, lock_holds_of, remember_calendar
from bookings.events import forget_reasons, record
from bookings.holds import unexpired_sql
from bookings.mails import services as mails
from bookings.models import Booking, BookingEvent, Slot
from bookings.seats import lock_to_book, move_to_free_seat, take_seat
from bookings.tally.metrics import CONFLICTS
from bookings.transitions import TRANSITIONS
from bookit.database.metadata import Changes, save_changes, stored
from bookit.database.retries import retried
from bookit.database.rows import fetch
from bookit.errors import CONSTRAINT_ERRORS, Conflict, Forbidden, Invalid, ServiceError
from bookit.times import day_end, day_start

Status = Booking.Status

# The type of the event that records a change to each status. If a hold becomes a booking, the type
# is CREATED even if the new status is CONFIRMED; see `_change_status`.
EVENT_OF = {
    Status.PENDING: BookingEvent.Type.CREATED,
    Status.CONFIRMED: BookingEvent.Type.CONFIRMED,
    Status.CANCELLED: BookingEvent.Type.CANCELLED,
    Status.COMPLETED: BookingEvent.Type.COMPLETED,
    Status.EXPIRED: BookingEvent.Type.EXPIRED,
    Status.NO_SHOW: BookingEvent.Type.NO_SHOW,
}


class CancellationTooLate(Conflict):
    """It is too late to reschedule or cancel this booking. Contact its provider."""

    code = "cancellation_too_late"


class TooManyHolds(Conflict):
    """A user can have at most 3 live holds. Book or cancel one of them first."""

    code = "too_many_holds"


class InvalidTransition(Conflict):
    """The current status does not allow this change."""

    code = "invalid_transition"


class EmailNotVerified(Forbidden):
    """Verify your email address before you book."""

    code = "email_not_verified"


class BookingStarted(Forbidden):
    """The booking has started. Its user can no longer change or delete it."""

    code = "booking_started"


CONSTRAINT_ERRORS.add("booking_seat_free", "booking_calendar_free", "booking_beside_slots")(
    BookingConflict
)
# While the booking was being made, the service was deleted or moved to another calendar, or raw SQL
# changed the time of the slot. If the slot is deleted meanwhile, `take_seat` raises `SlotFull`.
CONSTRAINT_ERRORS.add("booking_service_on_calendar", "booking_in_slot")(ServiceInactive)
CONSTRAINT_ERRORS.add("booking_transition")(InvalidTransition)

# When a booking is refused with one of these errors, the response lists free times as alternatives.
ERRORS_WITH_ALTERNATIVES = (BookingConflict, SlotFull, OutsideOpeningHours)

# The maximum number of live holds per user. The message of `TooManyHolds` repeats it.
MAX_HOLDS = 3

# Counts the active bookings of each calendar that start on one day, without expired holds. The day
# begins and ends at midnight in the calendar's own time zone.
#
# Parameters: calendar_ids uuid[], starts, ends timestamptz[] (in the order of calendar_ids),
#   at timestamptz (now).
# Columns: calendar_id uuid, bookings bigint; no row for a calendar without such bookings.
BUSY = f"""
SELECT day.calendar_id, count(*) AS bookings
FROM unnest(%(calendar_ids)s::uuid[], %(starts)s::timestamptz[], %(ends)s::timestamptz[])
    AS day (calendar_id, starts, ends)
JOIN bookings_booking AS booking ON booking.calendar_id = day.calendar_id
    AND booking.start_time >= day.starts AND booking.start_time < day.ends
    AND booking.active AND {unexpired_sql("booking.hold_expires_at")}
GROUP BY day.calendar_id
"""  # noqa: S608 - only our own SQL condition is interpolated, no values

# The terms of a service at a given start time, and the slot that starts at that time, if any.
Offer = tuple[Terms, SlotTerms | None]


@dataclass(frozen=True)
class Wish:
    """The parts of a booking request that do not depend on the service or slot."""

    actor: User
    user: User
    at: datetime
    end_time: datetime | None
    is_hold: bool
    attendee_name: str
    attendee_email: str
    attendee_phone: str
    language: str
    notes: str
    metadata: Changes | None
    overrides_limits: bool


def create_booking(
    *,
    actor: User,
    at: datetime,
    service_id: UUID | None = None,
    service_ids: Sequence[UUID] = (),
    slot_id: UUID | None = None,
    start_time: datetime | None = None,
    end_time: datetime | None = None,
    hold: bool = False,
    user_id: UUID | None = None,
    attendee_name: str = "",
    attendee_email: str = "",
    attendee_phone: str = "",
    language: str = "",
    notes: str = "",
    metadata: Changes | None = None,
    overrides_limits: bool = False,
) -> Booking:
    """Book the lowest free seat.

    Args:
        service_id, slot_id: the service or the slot to book.
        service_ids: alternatives to choose from. Services whose calendars have the fewest bookings
            that day are tried first, and the first free service is booked.
        start_time: required unless `slot_id` is given. If both are given, it must be the start of
            the slot.
        end_time: optional. If given, it must match the end that follows from the slot or from the
            service's duration.
        hold: only hold the seat. The hold expires after `settings.HOLD_TIME` unless it becomes a
            booking first, for example with `book_hold`.
        user_id: the user who gets the booking; by default, `actor`. Only admins and staff may book
            for another user.
        attendee_name, attendee_email, attendee_phone: the attendee; by default, the user.
        language: the language of emails to the attendee; by default, the user's.
        overrides_limits: ignore the service's minimum notice and its booking horizon. This is only
            for holds, because `book_hold_for` records in the history which limit was overridden. It
            is only for admins and staff who may book for other users and change bookings.
        at: the current time.

    Raises:
        Invalid: the service, slot or user does not exist; the user is not active; the slot belongs
            to another service; the start is missing or in the past; or `start_time` or `end_time`
            does not match.
        Forbidden: `actor` books for another user, or overrides limits, without the permission to do
            so.
        EmailNotVerified: `actor` books for themselves, must verify their email address first, and
            has not done so.
        ServiceInactive: the service or the slot cannot be booked.
        TooSoon: less than the service's minimum notice is left before the start.
        TooFarAhead: the start is beyond the service's booking horizon.
        OutsideOpeningHours: the calendar is closed at that time, or the service can be booked only
            in slots and no slot starts at that time.
        BookingConflict: at that time, every seat is taken, or the calendar hosts another service or
            a slot.
        SlotFull: every seat of the slot is taken or promised to the waitlist, or the slot has just
            been cancelled or deleted.
        TooManyHolds: the user already has the maximum number of live holds.
        TermsChanged: the calendar or the service changed during each attempt.
    """
    user = actor
    if overrides_limits and not (hold and may_override(actor=actor)):
        raise Forbidden(
            _(
                "Only staff who may change bookings and book for customers can override the notice "
                "and the horizon."
            )
        )
    if user_id is not None and user_id != actor.pk:
        check_books_for(user_id, actor)
        found = User.objects.filter(pk=user_id, is_active=True).first()
        if found is None:
            raise Invalid.of("user_id", _("There is no active user with this id."))
        user = found
    else:
        check_verified(actor)
    wish = Wish(
        actor=actor,
        user=user,
        at=at,
        end_time=end_time,
        is_hold=hold,
        attendee_name=attendee_name,
        attendee_email=attendee_email,
        attendee_phone=attendee_phone,
        language=language,
        notes=notes,
        metadata=metadata,
        overrides_limits=overrides_limits,
    )
    return _create(wish, service_id, service_ids, slot_id, start_time)


@on_current_terms
def _create(
    wish: Wish,
    service_id: UUID | None,
    service_ids: Sequence[UUID],
    slot_id: UUID | None,
    start_time: datetime | None,
) -> Booking:
    """Read the current terms and book under them; see `create_booking`."""
    if slot_id is not None:
        found = terms_in(slot_id)
        if found is None:
            raise Invalid.of("slot_id", _("There is no slot with this id."))
        named = {service_id, *service_ids} - {None}
        if named and found[0].service_id not in named:
            raise Invalid.of("slot_id", _("This slot belongs to another service."))
        _check_slot_starts(found[1], start_time)
        offers: list[Offer] = [found]
        start_time = found[1].start_time
    elif start_time is None:
        raise Invalid.of("start_time", _("This field is required."))
    else:
        offers = _offers(service_id, service_ids, start_time)
    try:
        if len(offers) == 1:
            return _book(wish, *offers[0], start_time)
        return _book_any(wish, offers, start_time)
    except ERRORS_WITH_ALTERNATIVES as refusal:
        # Unless the caller has begun a transaction (`bookit.idempotency` does so), no lock is held
        # while this call searches for free times.
        add_alternatives(
            refusal=refusal,
            service_ids=[terms.service_id for terms, _ in offers],
            start_time=start_time,
            at=wish.at,
        )
        raise


def reschedule_booking(
    *,
    booking_id: UUID,
    actor: User,
    at: datetime,
    start_time: datetime | None = None,
    slot_id: UUID | None = None,
) -> Booking:
    """Move a booking to another start time or slot of the same service, into the lowest free seat.

    The booking keeps its price. Unless it moves to a slot, it also keeps its length and buffers. If
    it already has this start time or slot, it does not change.

    Raises:
        Booking.DoesNotExist: there is no booking with this id.
        Forbidden: `actor` is neither the owner, nor the provider, nor an admin, nor permitted
            staff.
        InvalidTransition: the booking is neither pending nor confirmed.
        CancellationTooLate: `actor` is the owner, and less than the service's cancellation notice
            is left before the current start.
        Invalid: the new start is missing or in the past, the slot does not exist or belongs to
            another service, or `start_time` is not the start of the slot.
        ServiceInactive: the service or the slot cannot be booked.
        TooSoon: less than the service's minimum notice is left before the new start.
        TooFarAhead: the new start is beyond the service's booking horizon.
        OutsideOpeningHours: the calendar is closed at the new time, or the service can be booked
            only in slots and no slot starts at that time.
        BookingConflict: at the new time, every seat is taken, or the calendar hosts another service
            or a slot.
        SlotFull: every seat of the slot is taken or promised to the waitlist.
    """
    try:
        return _move(booking_id, actor=actor, at=at, start_time=start_time, slot_id=slot_id)
    except ERRORS_WITH_ALTERNATIVES as refusal:
        booking = Booking.with_id(booking_id).get()
        add_alternatives(
            refusal=refusal,
            service_ids=[booking.service_id],
            start_time=start_time or Slot.with_id(slot_id).get().start_time,
            at=at,
            moved=booking,
        )
        raise


@retried
@transaction.atomic
def cancel_booking(*, booking_id: UUID, actor: User, at: datetime, reason: str = "") -> Booking:
    """Cancel a booking and free its seat, as its owner, its provider, an admin or staff.

    The booking stores the reason, and shows it to everybody who may see the booking.

    Raises:
        Booking.DoesNotExist: there is no booking with this id.
        Forbidden: `actor` is neither the owner, nor the provider, nor an admin, nor permitted
            staff.
        InvalidTransition: the booking is already completed, cancelled, expired or a no-show.
        CancellationTooLate: `actor` is the owner, and less than the service's cancellation notice
            is left before the start.
    """
    booking = _locked_booking(booking_id)
    check_may_change(booking, actor)
    _check_notice(booking, actor, at)
    return _change_status(Status.CANCELLED, booking, actor=actor, at=at, reason=reason)


@retried
@transaction.atomic
def change_details(
    *, booking_id: UUID, actor: User, at: datetime, details: Mapping[str, Any]
) -> Booking:
    """Change the attendee, the notes or the metadata of a booking, whatever its status.

    The event names the details that have changed, but does not store their values, because events
    outlive their bookings. Metadata is merged, and its changes are not recorded in the history.

    Args:
        details: the new values by the names of the columns. A value that the booking already
            stores or shows is not a change, even if it comes from the user's account. If the name,
            email address, phone number or language is empty, the booking shows the value from the
            user's account.

    Raises:
        Booking.DoesNotExist: there is no booking with this id.
        Forbidden: `actor` is neither the owner, nor the provider, nor an admin, nor permitted
            staff.
        BookingStarted: `actor` is the owner, and the booking has started.
        TooManyKeys: the metadata would have too many keys.
    """
    booking = _locked_booking(booking_id)
    check_may_change(booking, actor)
    shown = {**booking.attendee(), "notes": booking.notes}
    changed = [
        name
        for name in shown
        if details.get(name, shown[name]) not in (shown[name], getattr(booking, name))
    ]
    columns = [*changed, "metadata"] if details.get("metadata") else changed
    if not columns:
        return booking
    if booking.start_time <= at and not _manages(actor, booking):
        raise BookingStarted
    if changed:
        event = record(booking, BookingEvent.Type.CHANGED, actor=actor, at=at, changed=changed)
        if "attendee_email" in changed:
            # The email to the former attendee is composed while the booking still names them.
            mails.enqueue_farewell(event=event)
    save_changes(booking, {**{name: details[name] for name in columns}, "updated_at": at})
    return booking


def cancel_all(*, user: User, actor: User, at: datetime) -> None:
    """Cancel all future bookings of a user, however short the notice, in the caller's transaction.

    This is for users whose accounts are deleted.
    """
    # Each booking is locked on its own, because a statement that locks bookings must name their
    # calendar. `locked` checks again that the booking is unfinished: it may have changed meanwhile.
    future = Booking.objects.filter(user=user, status__in=Booking.UNFINISHED, start_time__gt=at)
    locked = future.select_for_update(of=("self",), no_key=True)
    for calendar_id, pk in [*future.order_by("id").values_list("calendar_id", "pk")]:
        for booking in locked.filter(calendar=calendar_id, pk=pk):
            _change_status(Status.CANCELLED, booking, actor=actor, at=at)


@retried
@transaction.atomic
def release_hold(*, booking: Booking, actor: User, at: datetime) -> Booking:
    """Cancel a hold on behalf of `actor`. The caller has checked that `actor` may do this.

    Raises:
        Booking.DoesNotExist: the booking has been deleted.
        InvalidTransition: the booking is no longer a hold.
    """
    locked = _locked_booking(booking.pk, booking.calendar_id)
    if locked.status != Status.HELD:
        raise InvalidTransition
    return _change_status(Status.CANCELLED, locked, actor=actor, at=at)


@retried
@transaction.atomic
def book_hold(*, booking_id: UUID, actor: User, at: datetime) -> Booking:
    """Turn a hold into a booking.

    The booking is pending if its service requires confirmation. Otherwise, it is confirmed.

    Raises:
        Booking.DoesNotExist: there is no booking with this id.
        Forbidden: `actor` is neither the owner, nor the provider, nor an admin, nor permitted
            staff. The owner is also refused unless the booking is held, expired or cancelled.
        EmailNotVerified: `actor` is the owner, and must verify their email address first.
        InvalidTransition: the hold has expired, the booking is not a hold, or it has started and
            its service requires confirmation.
    """
    booking = _locked_booking(booking_id)
    # Owners whose hold has ended in the meantime get an `InvalidTransition`, which says so.
    if booking.status in (Status.HELD, Status.EXPIRED, Status.CANCELLED):
        check_may_change(booking, actor)
        if not _manages(actor, booking):
            check_verified(actor)
    else:
        check_manages(booking, actor)
    return _change_status(Status.PENDING, booking, actor=actor, at=at)


@retried
@transaction.atomic
def book_hold_for(
    *,
    booking_id: UUID,
    user: User,
    actor: User,
    at: datetime,
    attendee: Mapping[str, str],
    notes: str = "",
    confirm: bool = False,
) -> Booking:
    """Turn a hold that `actor` has made into a booking for `user`, as an admin or staff.

    The hold may belong to `actor`, because staff can hold a time before they know who calls. If the
    hold overrode the service's notice or horizon, the event says so in `overridden`.

    Args:
        attendee: the attendee's name, email address and phone number, by the names of the columns;
            empty values stand for the values of `user`.
        confirm: the booking is confirmed, even if its service requires confirmation.

    Raises:
        Booking.DoesNotExist: there is no booking with this id.
        Forbidden: `actor` may not book for `user`, may not confirm the booking, or did not make the
            hold; or the hold belongs to neither `user` nor `actor`.
        Invalid: `user` is not active.
        InvalidTransition: the hold has expired, the booking is not a hold, or it has started and
            would not be confirmed at once.
    """
    check_books_for(user.pk, actor)
    if not user.is_active:
        raise Invalid.of("user_id", _("There is no active user with this id."))
    booking = _locked_booking(booking_id)
    if booking.user_id not in (actor.pk, user.pk) or not (
        Booking.objects.held_by(actor).filter(pk=booking_id).exists()
    ):
        raise Forbidden(_("Somebody else made this hold."))
    if confirm:
        check_manages(booking, actor)
    terms = terms_at([booking.service_id], booking.start_time)[booking.service_id][0]
    overridden = _broken_limit(terms, booking.start_time, booking.created_at)
    remember_calendar(user_id=user.pk, calendar_id=booking.calendar_id)
    booking.user, booking.notes = user, notes
    for column, text in attendee.items():
        setattr(booking, column, text)
    booking.save(update_fields=["user", "notes", *attendee])
    # A booking that is not a hold must be refused. `_change_status` would confirm a pending
    # booking, but it refuses PENDING for every booking except a hold.
    status = Status.CONFIRMED if confirm and booking.status == Status.HELD else Status.PENDING
    return _change_status(status, booking, actor=actor, at=at, overridden=overridden)


@retried
@transaction.atomic
def change_status(
    *, booking_id: UUID, status: str, actor: User, at: datetime, reason: str = ""
) -> Booking:
    """Change the status of a booking, as its provider, an admin or staff.

    Raises:
        Booking.DoesNotExist: there is no booking with this id.
        Forbidden: `actor` is neither the provider, nor an admin, nor permitted staff. To cancel a
            booking as its owner, use `cancel_booking`.
        InvalidTransition: the current status does not allow the change, or a hold that would become
            a booking has expired, or would be pending although it has started.
    """
    booking = _locked_booking(booking_id)
    check_manages(booking, actor)
    return _change_status(status, booking, actor=actor, at=at, reason=reason)


@retried
@transaction.atomic
def delete_booking(*, booking_id: UUID, actor: User, at: datetime) -> None:
    """Delete a booking, but keep its history without reasons.

    If the booking is upcoming, the history records its cancellation before its deletion.

    Raises:
        Booking.DoesNotExist: there is no booking with this id.
        Forbidden: `actor` is neither the owner, nor an admin, nor permitted staff.
        BookingStarted: `actor` is the owner, and the booking has started.
        CancellationTooLate: `actor` is the owner, and less than the service's cancellation notice
            is left before the start.
    """
    booking = _locked_booking(booking_id)
    check_may_delete(booking, actor)
    if not actor.may("bookings.delete_booking"):
        if booking.start_time <= at:
            raise BookingStarted
        _check_notice(booking, actor, at)
    if booking.status in Booking.UNFINISHED and booking.start_time > at:
        was = {"status": booking.status}
        booking.status, booking.hold_expires_at = Status.CANCELLED, None
        record(booking, BookingEvent.Type.CANCELLED, actor=actor, at=at, was=was)
    # Emails that wait to be sent are composed now, because the booking will be gone by then.
    mails.enqueue_composed(booking=booking)
    record(booking, BookingEvent.Type.DELETED, actor=actor, at=at)
    forget_reasons(calendar_id=booking.calendar_id, booking_ids=[booking.pk])
    booking.delete()


def add_alternatives(
    *,
    refusal: ServiceError,
    service_ids: Sequence[UUID],
    start_time: datetime,
    at: datetime,
    moved: Booking | None = None,
) -> None:
    """Add the free times nearest to `start_time` to an error, and count conflicts."""
    if isinstance(refusal, BookingConflict | SlotFull):
        CONFLICTS.increment()
    refusal.members["alternatives"] = nearest(service_ids, start_time, at=at, moved=moved)


def _manages(user: User, booking: Booking) -> bool:
    """Return whether `user` may manage `booking`, as its provider, an admin or staff."""
    return user.may("bookings.change_booking", booking.calendar.provider_id)


def may_override(*, actor: User) -> bool:
    """Return whether `actor` may override the notice and the horizon of services for customers.

    These limits are rules of the provider. Therefore, somebody who overrides them needs the
    permission to change bookings as providers can, in addition to the permission to book for other
    users.
    """
    return actor.may("bookings.add_booking") and actor.may("bookings.change_booking")


def check_books_for(user_id: UUID, actor: User) -> None:
    """Check that `actor` may book for a user.

    All users may book for themselves. Admins and permitted staff may book for any user.

    Raises:
        Forbidden: `actor` books for another user without the permission to do so.
    """
    if user_id != actor.pk and not actor.may("bookings.add_booking"):
        raise Forbidden(_("You can book only for yourself."))


def check_verified(actor: User) -> None:
    """Check that the email address of a user who books is verified, if the operator requires it.

    Raises:
        EmailNotVerified: the email address must be verified, but is not.
    """
    if settings.BOOKING_REQUIRES_VERIFIED_EMAIL and not actor.email_verified:
        raise EmailNotVerified


def check_may_read(booking: Booking, actor: User) -> None:
    """Check that `actor` may see a booking, as its owner, its provider, an admin or staff.

    Raises:
        Forbidden: `actor` is somebody else.
    """
    if booking.user_id != actor.pk and not actor.may(
        "bookings.view_booking", booking.calendar.provider_id
    ):
        raise Forbidden(_("This booking belongs to another user."))


def check_may_change(booking: Booking, actor: User) -> None:
    """Check that `actor` may change a booking, as its owner, its provider, an admin or staff.

    Raises:
        Forbidden: `actor` is somebody else.
    """
    if booking.user_id != actor.pk and not _manages(actor, booking):
        raise Forbidden(_("This booking belongs to another user."))


def check_may_delete(booking: Booking, actor: User) -> None:
    """Check that `actor` may delete a booking, as its owner, an admin or staff.

    For the owner, `delete_booking` also checks the start and the cancellation notice, once it has
    locked the booking.

    Raises:
        Forbidden: `actor` is somebody else.
    """
    if booking.user_id != actor.pk and not actor.may("bookings.delete_booking"):
        raise Forbidden(_("This booking belongs to another user."))


def check_manages(booking: Booking, actor: User) -> None:
    """Check that `actor` may manage a booking, as its provider, an admin or staff.

    Raises:
        Forbidden: `actor` is somebody else.
    """
    if not _manages(actor, booking):
        raise Forbidden(
            _(
                "Only the booking's provider, admins and permitted staff can do this. You can "
                "reschedule or cancel your own bookings."
            )
        )


def _check_notice(booking: Booking, actor: User, at: datetime) -> None:
    """Check that an owner who moves, cancels or deletes a booking gives the required notice.

    A hold can be released without notice.

    Raises:
        CancellationTooLate: less than the service's cancellation notice is left before the start.
    """
    if booking.status not in Booking.EXPECTED or _manages(actor, booking):
        return
    if booking.start_time - at < timedelta(minutes=booking.service.cancellation_notice_minutes):
        raise CancellationTooLate


def _change_status(
    status: str, booking: Booking, *, actor: User, at: datetime, reason: str = "", **more: Any
) -> Booking:
    """Change the status of a locked booking, and record the event with the data in `more`.

    A hold becomes confirmed instead of pending if its service requires no confirmation.
    """
    if status not in TRANSITIONS[booking.status]:
        raise InvalidTransition(
            _("A booking that is %(status)s cannot become %(new)s.")
            % {"status": booking.get_status_display().lower(), "new": Status(status).label.lower()}
        )
    kind = EVENT_OF[Status(status)]
    if booking.status == Status.HELD and status in (Status.PENDING, Status.CONFIRMED):
        if booking.hold_expires_at and booking.hold_expires_at <= at:
            raise InvalidTransition(_("This hold has expired."))
        kind = BookingEvent.Type.CREATED
        if not booking.service.requires_confirmation:
            status = Status.CONFIRMED
        if status == Status.PENDING and booking.start_time <= at:
            # It would expire within a minute.
            raise InvalidTransition(
                _("The booking can no longer be requested, because its start has passed.")
            )
    was = {"status": booking.status}
    columns = ["status", "updated_at", "hold_expires_at"]
    booking.status, booking.updated_at, booking.hold_expires_at = status, at, None
    if status == Status.CANCELLED:
        columns.append("cancellation_reason")
        booking.cancellation_reason = reason
    if actor.pk == booking.user_id:
        # An event outlives its booking, so the reason that the user gave is not stored in it. The
        # history reads the reason for a cancellation from the booking.
        reason = ""
    booking.save(update_fields=columns)
    record(booking, kind, actor=actor, at=at, was=was, reason=reason, **more)
    return booking


def _broken_limit(terms: Terms, start_time: datetime, at: datetime) -> str:
    """Return the code of the limit that a booking made at `at` breaks, or an empty text."""
    try:
        terms.check_start(start_time, at)
    except (TooSoon, TooFarAhead) as refusal:
        return refusal.code
    except ServiceError:
        # The refusal has another reason: for example, the service was deactivated after the hold
        # was made.
        return ""
    return ""


def _locked_booking(booking_id: UUID, calendar_id: UUID | None = None) -> Booking:
    found: Booking = (
        Booking.with_id(booking_id, calendar_id)
        .select_for_update(of=("self",), no_key=True)
        .select_related("service", "calendar", "user")
        .get()
    )
    return found


def _check_slot_starts(slot: SlotTerms, start_time: datetime | None) -> None:
    if start_time not in (None, slot.start_time):
        raise Invalid.of(
            "start_time",
            _(
                "The slot starts at a different time. Omit start_time, or "
                "send the start of the slot."
            ),
        )


def _offers(
    service_id: UUID | None, service_ids: Sequence[UUID], start_time: datetime
) -> list[Offer]:
    """Return the offer of each service at `start_time`, in the order of the ids.

    Raises:
        Invalid: one of the ids belongs to no service.
    """
    wanted = [*dict.fromkeys(service_ids)] if service_id is None else [service_id]
    found = terms_at(wanted, start_time)
    if service_id is not None and service_id not in found:
        raise Invalid.of("service_id", _("There is no service with this id."))
    unknown = [each for each in wanted if each not in found]
    if unknown:
        raise Invalid.of(
            "service_ids",
            _("There is no service with the id %(unknown)s.") % {"unknown": unknown[0]},
        )
    return [found[each] for each in wanted]


@retried
def _book(wish: Wish, terms: Terms, slot: SlotTerms | None, start_time: datetime) -> Booking:
    """Book one service, with or without a slot."""
    if wish.overrides_limits:
        terms = terms.without_limits()
    terms.check_start(start_time, wish.at)
    end_time = slot.end_time if slot else start_time + terms.duration
    if wish.end_time not in (None, end_time):
        minutes = (end_time - start_time) // timedelta(minutes=1)
        raise Invalid.of(
            "end_time",
            ngettext(
                "The booking would last %(minutes)d minute. Omit end_time, or send the matching "
                "end.",
                "The booking would last %(minutes)d minutes. Omit end_time, or send the matching "
                "end.",
                minutes,
            )
            % {"minutes": minutes},
        )
    if slot:
        terms.check_slot(slot)
        blocked = slot.blocked
    else:
        terms.check_open(start_time, end_time)
        blocked = terms.blocked(start_time)
    status = Status.PENDING if terms.requires_confirmation else Status.CONFIRMED
    booking = Booking(
        id=uuid7(),
        user=wish.user,
        service_id=terms.service_id,
        calendar_id=terms.calendar_id,
        slot_id=slot.id if slot else None,
        start_time=start_time,
        end_time=end_time,
        blocked=blocked,
        status=Status.HELD if wish.is_hold else status,
        attendee_name=wish.attendee_name,
        attendee_email=wish.attendee_email,
        attendee_phone=wish.attendee_phone,
        language=wish.language,
        notes=wish.notes,
        price=terms.price,
        currency=terms.currency,
        hold_expires_at=wish.at + settings.HOLD_TIME if wish.is_hold else None,
        metadata=stored(wish.metadata),
        created_at=wish.at,
        updated_at=wish.at,
    )
    capacity = slot.capacity if slot else terms.capacity
    if not wish.is_hold:
        booking.seat = take_seat(
            booking, capacity=capacity, version=terms.version, actor=wish.actor
        )
        return booking
    with transaction.atomic():
        lock_holds_of(wish.user.pk)
        if live_holds_of(wish.user.pk, wish.at).count() >= MAX_HOLDS:
            raise TooManyHolds
        booking.seat = take_seat(
            booking, capacity=capacity, version=terms.version, actor=wish.actor
        )
    return booking


@retried
@transaction.atomic
def _book_any(wish: Wish, offers: list[Offer], start_time: datetime) -> Booking:
    """Book the first free service. Services with less busy calendars that day are tried first.

    A failed attempt is rolled back before the next one begins, so it keeps no locks. Therefore,
    transactions that try the services in different orders cannot deadlock.
    """
    bookings = _bookings_that_day([terms for terms, _ in offers], start_time, wish.at)
    refusals: list[ServiceError] = []
    for terms, slot in sorted(offers, key=lambda offer: bookings.get(offer[0].calendar_id, 0)):
        try:
            with transaction.atomic():
                return _book(wish, terms, slot, start_time)
        except TooManyHolds:
            # The user can hold no other service either. If an earlier refusal were raised instead,
            # its alternatives could not be held.
            raise
        except (Conflict, Invalid) as refusal:
            refusals.append(refusal)
    # Prefer an error for which the response lists alternatives.
    raise next(
        (each for each in refusals if isinstance(each, ERRORS_WITH_ALTERNATIVES)), refusals[0]
    )


def _bookings_that_day(
    services: list[Terms], start_time: datetime, at: datetime
) -> dict[UUID, int]:
    """Return the numbers of active bookings that start on the day of `start_time`, by calendar."""
    zones = {terms.calendar_id: terms.opening.tz for terms in services}
    days = {calendar: (start_time.astimezone(tz).date(), tz) for calendar, tz in zones.items()}
    rows = fetch(
        BUSY,
        {
            "calendar_ids": list(days),
            "starts": [day_start(day, tz) for day, tz in days.values()],
            "ends": [day_end(day, tz) for day, tz in days.values()],
            "at": at,
        },
        dict_row,
    )
    return {row["calendar_id"]: row["bookings"] for row in rows}


def _destination(
    booking: Booking, start_time: datetime | None, slot_id: UUID | None
) -> tuple[Terms, SlotTerms | None, datetime]:
    """Return the terms, the slot (if any) and the start time that a booking has after a move."""
    if slot_id is not None:
        found = terms_in(slot_id)
        if found is None or found[0].service_id != booking.service_id:
            raise Invalid.of("slot_id", _("This booking's service has no slot with this id."))
        _check_slot_starts(found[1], start_time)
        return found[0].for_booking(booking), found[1], found[1].start_time
    if start_time is None:
        raise Invalid.of("start_time", _("This field is required."))
    terms, slot = terms_at([booking.service_id], start_time)[booking.service_id]
    return terms.for_booking(booking), slot, start_time


@retried
@transaction.atomic
def _move(
    booking_id: UUID,
    *,
    actor: User,
    at: datetime,
    start_time: datetime | None,
    slot_id: UUID | None,
) -> Booking:
    """Move a booking; see `reschedule_booking`."""
    # Moves on the same calendar run one after another. If they ran at once, two UPDATEs that are
    # checked by the same exclusion constraint could wait for each other until the deadlock detector
    # ends one of them. Slots are changed under the same lock. The terms, which are read below,
    # cannot change while this lock is held.
    calendar_id = Booking.calendar_of(booking_id)
    lock_to_book(calendar_id)
    booking = _locked_booking(booking_id, calendar_id)
    check_may_change(booking, actor)
    if booking.status not in Booking.EXPECTED:
        raise InvalidTransition(
            _("A booking that is %(status)s cannot be rescheduled.")
            % {"status": booking.get_status_display().lower()}
        )
    if start_time == booking.start_time or (slot_id and slot_id == booking.slot_id):
        return booking
    _check_notice(booking, actor, at)
    terms, slot, start_time = _destination(booking, start_time, slot_id)
    terms.check_start(start_time, at)
    was = {
        "start_time": booking.start_time.isoformat(),
        "end_time": booking.end_time.isoformat(),
        "slot_id": str(booking.slot_id) if booking.slot_id else None,
    }
    if slot:
        terms.check_slot(slot)
        booking.end_time, booking.blocked = slot.end_time, slot.blocked
    else:
        booking.end_time = start_time + terms.duration
        terms.check_open(start_time, booking.end_time)
        booking.blocked = terms.blocked(start_time)
    booking.start_time, booking.slot_id = start_time, slot.id if slot else None
    booking.updated_at = at
    move_to_free_seat(booking, capacity=slot.capacity if slot else terms.capacity)
    record(booking, BookingEvent.Type.RESCHEDULED, actor=actor, at=at, was=was)
    return booking
