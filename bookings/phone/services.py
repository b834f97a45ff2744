"""The steps of a call: find the customer, offer free times, hold one of them, and book it."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from itertools import groupby, islice
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils.translation import gettext as _

from accounts import services as accounts
from accounts.models import User
from bookings import services
from bookings.availability.search import LONGEST, FreeTime, Search
from bookings.availability.terms import Terms, TooFarAhead, TooSoon, terms_of
from bookings.models import Booking
from bookit.database.retries import retried
from bookit.errors import Invalid
from bookit.times import day_end, day_start

# With fewer letters, a search would find almost everybody, and could not use its index.
FEWEST_LETTERS = 3
# The customers that a search returns at most. A receptionist types another letter instead of
# reading a longer list.
MOST_CUSTOMERS = 8
# The free times of so many days are offered at once.
DAYS = 7
# The free times that are offered at most. A service that begins every five minutes has more.
MOST_TIMES = 300


@dataclass(frozen=True)
class Caller:
    """The person on the phone, as the receptionist has written them down.

    Args:
        customer: the account that was chosen from the search, if any.
    """

    customer: User | None
    name: str
    email: str
    phone: str


@dataclass(frozen=True)
class Offer:
    """A free time. `limit` is the code of the limit that only staff may override, if any."""

    start_time: datetime
    end_time: datetime
    seats_left: int
    limit: str = ""


@dataclass(frozen=True)
class Offers:
    """The free times of a service, by day in the zone of its calendar.

    Args:
        capacity: the number of seats that the service has at a time.
        is_cut: whether there are more than `MOST_TIMES` free times, so that some are left out.
        next_day: the next day with a free time, if none of these days has one.
    """

    tz: tzinfo
    first_day: date
    days: list[tuple[date, list[Offer]]]
    capacity: int
    is_cut: bool
    next_day: date | None

    @property
    def earlier(self) -> date:
        """The first day of the previous `DAYS`."""
        return self.first_day - timedelta(days=DAYS)

    @property
    def later(self) -> date:
        """The first day of the next `DAYS`."""
        return self.first_day + timedelta(days=DAYS)


def customers(*, actor: User) -> QuerySet[User]:
    """Return the active accounts that `actor` may find, in order to book for them.

    Staff who may see accounts find all of them. Staff who may only see bookings find the users of
    bookings, whose names and addresses they see anyway.
    """
    users = User.objects.all().present().filter(is_active=True)
    if actor.may("accounts.view_user"):
        return users
    if actor.may("bookings.view_booking"):
        return users.filter(Exists(Booking.objects.filter(user=OuterRef("pk"))))
    return users.none()


def find_customers(*, words: str, actor: User) -> list[User]:
    """Return the first few customers whose name, email address or phone number contains `words`."""
    words = words.strip()
    if len(words) < FEWEST_LETTERS or "\0" in words:
        return []
    found = customers(actor=actor).reached_by(words)  # type: ignore[attr-defined]
    return [*found.order_by("name", "id")[:MOST_CUSTOMERS]]


def offer(
    *, service_id: UUID, day: date | None, at: datetime, overrides_limits: bool = False
) -> Offers:
    """Return the free times of a service on `DAYS` days.

    Args:
        day: the first day, in the zone of the service's calendar; by default, today.
        overrides_limits: also offer times that break the minimum notice or the booking horizon.

    Raises:
        Invalid: there is no service with this id.
    """
    found = terms_of([service_id], at)
    if service_id not in found:
        raise Invalid.of("service", _("There is no service with this id."))
    terms = found[service_id]
    tz = terms.opening.tz
    day = day or at.astimezone(tz).date()
    begin, end = day_start(day, tz), day_end(day + timedelta(days=DAYS - 1), tz)
    offered = terms.without_limits() if overrides_limits else terms
    times = [*islice(Search([offered], begin, end, at=at).free_times(offered), MOST_TIMES + 1)]
    offers = [_offer(time, terms, at) for time in times[:MOST_TIMES]]
    return Offers(
        tz=tz,
        first_day=day,
        days=[
            (each, [*group])
            for each, group in groupby(
                offers, key=lambda time: time.start_time.astimezone(tz).date()
            )
        ],
        capacity=terms.capacity,
        is_cut=len(times) > MOST_TIMES,
        next_day=None if times else _next_day(offered, max(end, at), at),
    )


def _offer(time: FreeTime, terms: Terms, at: datetime) -> Offer:
    limit = ""
    try:
        terms.check_start(time["start_time"], at)
    except (TooSoon, TooFarAhead) as broken:
        limit = broken.code
    return Offer(time["start_time"], time["end_time"], time["seats_left"], limit)


def _next_day(terms: Terms, after: datetime, at: datetime) -> date | None:
    """Return the first day with a free time after `after`, as far as a search reaches."""
    times: Iterable[FreeTime] = Search([terms], after, after + LONGEST, at=at).free_times(terms)
    for time in times:
        return time["start_time"].astimezone(terms.opening.tz).date()
    return None


def hold(
    *,
    service_id: UUID,
    start_time: datetime,
    customer: User | None,
    actor: User,
    at: datetime,
    overrides_limits: bool = False,
    instead_of: UUID | None = None,
) -> Booking:
    """Hold a seat during the call: for the customer, or for `actor` until the customer is known.

    Args:
        instead_of: the previous hold of this call. It is released first, so that a call never holds
            two seats.

    Raises:
        Invalid, Forbidden, Conflict: as in `bookings.services.create_booking`.
    """
    if instead_of is not None:
        release(hold_id=instead_of, actor=actor, at=at)
    return services.create_booking(
        service_id=service_id,
        start_time=start_time,
        user_id=customer.pk if customer else None,
        actor=actor,
        at=at,
        hold=True,
        overrides_limits=overrides_limits,
    )


def release(*, hold_id: UUID, actor: User, at: datetime) -> None:
    """Release a hold that `actor` has made; do nothing if there is no such hold any more."""
    found = services.holds_made_by(actor).filter(pk=hold_id, status=Booking.Status.HELD).first()
    if found is not None:
        # It may end by itself at this very moment.
        with suppress(services.InvalidTransition):
            services.release_hold(booking=found, actor=actor, at=at)


def hold_of_call(
    *, hold_id: UUID | None, service_id: UUID, start_time: datetime, caller: Caller, actor: User
) -> Booking | None:
    """Return what has become of the hold of this call, if it is for what the form says.

    A hold for another customer is of no use: it may be that customer's place on a waitlist.
    """
    if hold_id is None:
        return None
    users = {actor.pk, caller.customer.pk if caller.customer else actor.pk}
    found = services.holds_made_by(actor).filter(
        pk=hold_id, service=service_id, start_time=start_time
    )
    for booking in found:
        if booking.user_id in users or booking.status != Booking.Status.HELD:
            return booking
    return None


@retried
@transaction.atomic
def book(
    *, held: Booking, caller: Caller, actor: User, at: datetime, notes: str, confirm: bool
) -> Booking:
    """Book a hold for the caller, who gets an account if they have an email address but no account.

    Without an email address, the booking is kept under the account of `actor`, with the name and
    phone number of the caller. If the booking is refused, no account is created.

    Raises:
        Invalid: the account with this email address is not active.
        Forbidden, InvalidTransition: as in `bookings.services.book_hold_for`.
    """
    services.check_books_for(held.user_id, actor)
    user = caller.customer or _account(caller, held, actor, at)
    written = {"name": caller.name, "email": caller.email, "phone": caller.phone}
    return services.book_hold_for(
        booking_id=held.pk,
        user=user,
        actor=actor,
        at=at,
        # What the account says anyway is not stored, so that the booking follows the account.
        attendee={
            f"attendee_{name}": "" if text == getattr(user, name) else text
            for name, text in written.items()
        },
        notes=notes,
        confirm=confirm,
    )


def _account(caller: Caller, held: Booking, actor: User, at: datetime) -> User:
    if not caller.email:
        return actor
    known = User.objects.filter(email=caller.email).first()
    if known is None:
        return accounts.add_customer(
            name=caller.name,
            email=caller.email,
            phone=caller.phone,
            timezone=held.calendar.timezone,
            at=at,
        )
    if not known.is_active:
        raise Invalid.of("email", _("The account with this email address is not active."))
    return known
