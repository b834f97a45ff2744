"""The steps of a call: find the customer, offer free times, hold one of them, and book it."""

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from accounts import services as accounts
from accounts.models import User
from bookings import services
from bookings.availability.search import LONGEST, FreeTime, Search, whole_days
from bookings.availability.terms import Terms, TooFarAhead, TooSoon, terms_of
from bookings.booked import with_bookings
from bookings.models import Booking
from bookit.database.retries import retried
from bookit.errors import Invalid
from bookit.times import day_end, day_start

# A search needs three letters or digits. With fewer, it would find too many accounts, and could not
# use its trigram indexes.
LETTERS = r"(\w\W*){3}"
# A search returns at most this many customers. A receptionist types another letter instead of
# reading a longer list.
MOST_CUSTOMERS = 8
# A search reads at most this many matches, and chooses the customers from them.
MOST_MATCHES = 200
# At most this many upcoming bookings of a customer are shown.
MOST_VISITS = 3
# The free times of this many days are offered together.
DAYS = 7
# At most this many free times are offered, unless the first day has more. A service with a start
# every five minutes has more in a week.
MOST_TIMES = 300


@dataclass(frozen=True)
class Caller:
    """The person on the phone, with the details that the receptionist entered.

    Args:
        customer: the account that was chosen from the search, if any.
    """

    customer: User | None
    name: str
    email: str
    phone: str


@dataclass(frozen=True)
class Visits:
    """The next few bookings of a customer, and the active service that they booked last."""

    coming: list[Booking]
    service_id: UUID | None


@dataclass(frozen=True)
class Offer:
    """A free time.

    Args:
        limit: the error code of the limit that staff must override to book this time, if any.
    """

    start_time: datetime
    end_time: datetime
    seats_left: int
    limit: str = ""


@dataclass(frozen=True)
class Offers:
    """The free times of a service from `first_day` to `last_day`, in the zone of its calendar.

    Args:
        days: the days that have free times, with their free times.
        capacity: the number of seats of the service.
        cut_at: the first of the `DAYS` days that is left out, because there are too many times.
        next_day: if `days` is empty, the next day with a free time.
    """

    tz: tzinfo
    today: date
    first_day: date
    days: list[tuple[date, list[Offer]]]
    capacity: int
    cut_at: date | None
    next_day: date | None

    @property
    def last_day(self) -> date:
        """The last day that is offered, even if it has no free time."""
        return self.later - timedelta(days=1)

    @property
    def earlier(self) -> date | None:
        """The first of the previous `DAYS` days, but not before today; None if there are none."""
        earlier = max(self.today, self.first_day - timedelta(days=DAYS))
        return earlier if earlier < self.first_day else None

    @property
    def later(self) -> date:
        """The day after `last_day`."""
        return self.cut_at or self.first_day + timedelta(days=DAYS)


def customers(*, actor: User) -> QuerySet[User]:
    """Return the active accounts that `actor` may find, in order to book for them.

    A search finds only accounts that the lists of the admin site also show: staff who may see
    accounts find all accounts, staff who may see bookings find the users of bookings, and others
    find nobody. Therefore, searches need no rate limit.
    """
    users = User.objects.all().present().filter(is_active=True)
    if actor.may("accounts.view_user"):
        return users
    if actor.may("bookings.view_booking"):
        return with_bookings(users)
    return users.none()


def find_customers(*, words: str, actor: User) -> list[User]:
    """Return a few customers who match `words`; see `_rank` for their order."""
    words = words.strip()
    if "\0" in words or not re.search(LETTERS, words):
        return []
    found = customers(actor=actor).reached_by(words)  # type: ignore[attr-defined]
    # Sorting all matches by name would take most of a second if many of 100,000 accounts match. A
    # receptionist who gets that many matches types another letter anyway.
    few = found.only("id", "name", "email", "phone").order_by()[:MOST_MATCHES]
    return sorted(few, key=lambda user: _rank(user, words))[:MOST_CUSTOMERS]


def _rank(user: User, words: str) -> tuple[bool, str, UUID]:
    """Return a sort key: users with a name in which a word begins with `words` come first."""
    name = f" {user.name.casefold()}"
    return f" {words.casefold()}" not in name, name, user.pk


def visits(*, customer: User, actor: User, at: datetime) -> Visits:
    """Return the next few bookings of a customer, and the active service that they booked last.

    Cancelled and expired bookings do not count. A hold counts for the last service, but is not one
    of the next bookings. The result is empty if `actor` may not see bookings.
    """
    if not actor.may("bookings.view_booking"):
        return Visits([], None)
    bookings = Booking.objects.filter(user=customer, active=True)
    coming = bookings.filter(start_time__gte=at).exclude(status=Booking.Status.HELD)
    next_ones = coming.select_related("service", "calendar").order_by("start_time", "id")
    last = bookings.filter(service__is_active=True).order_by("-created_at", "-id")
    return Visits([*next_ones[:MOST_VISITS]], last.values_list("service", flat=True).first())


def offer(
    *,
    service_id: UUID,
    day: date | None,
    actor: User,
    at: datetime,
    overrides_limits: bool = False,
    hold_id: UUID | None = None,
) -> Offers:
    """Return the free times of a service on `DAYS` days.

    Args:
        day: the first day, in the zone of the service's calendar; by default, today.
        overrides_limits: also offer times that break the minimum notice or the booking horizon.
        hold_id: the hold of this call. If `actor` has made it, its time is offered as well.

    Raises:
        Invalid: there is no service with this id.
    """
    found = terms_of([service_id], at)
    if service_id not in found:
        raise Invalid.of("service", _("There is no service with this id."))
    terms = found[service_id]
    tz = terms.opening.tz
    today = at.astimezone(tz).date()
    day = day or today
    begin, end = day_start(day, tz), day_end(day + timedelta(days=DAYS - 1), tz)
    offered = terms.without_limits() if overrides_limits else terms
    ignored = None
    if hold_id is not None:
        own = Booking.objects.held_by(actor).filter(pk=hold_id, status=Booking.Status.HELD)
        ignored = own.values_list("pk", flat=True).first()
    search = Search([offered], begin, end, at=at, ignored=ignored)
    days, more = whole_days(search.free_times(offered), MOST_TIMES, tz)
    return Offers(
        tz=tz,
        today=today,
        first_day=day,
        days=[(each, [_offer(time, terms, at) for time in times]) for each, times in days],
        capacity=terms.capacity,
        cut_at=more,
        next_day=None if days else _next_day(offered, max(end, at), at),
    )


def _offer(time: FreeTime, terms: Terms, at: datetime) -> Offer:
    limit = ""
    try:
        terms.check_start(time["start_time"], at)
    except (TooSoon, TooFarAhead) as broken:
        limit = broken.code
    return Offer(time["start_time"], time["end_time"], time["seats_left"], limit)


def _next_day(terms: Terms, after: datetime, at: datetime) -> date | None:
    """Return the day of the first free time at or after `after`; None if not within `LONGEST`."""
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
        instead_of: the previous hold of this call. It is kept if it has not expired, is for the
            same service and time, and belongs to `customer` or to `actor`. Otherwise, it is
            released first, so that a call never holds two seats.

    Raises:
        Invalid, Forbidden, Conflict, TermsChanged: as in `bookings.services.create_booking`.
    """
    if instead_of is not None:
        # A hold that was made before the customer was known belongs to `actor`.
        users = {actor.pk, customer.pk if customer else actor.pk}
        same = Booking.objects.held_by(actor).filter(
            pk=instead_of, service=service_id, start_time=start_time, user__in=users
        )
        for held in same.filter(status=Booking.Status.HELD, hold_expires_at__gt=at):
            return held
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
    """Release a hold. Do nothing if `actor` did not make it, or if it is no longer a hold."""
    found = Booking.objects.held_by(actor).filter(pk=hold_id, status=Booking.Status.HELD).first()
    if found is not None:
        # The hold may expire or be booked at this very moment.
        with suppress(services.InvalidTransition):
            services.release_hold(booking=found, actor=actor, at=at)


def booked_in_call(
    *, hold_id: UUID, service_id: UUID, start_time: datetime, actor: User
) -> Booking | None:
    """Return the booking that the hold of this call has become, if the form was sent before.

    Return None if the hold has not been booked, if `actor` did not make it, or if the form now has
    another service or start.
    """
    own = Booking.objects.held_by(actor).filter(status__in=Booking.EXPECTED)
    return own.filter(pk=hold_id, service=service_id, start_time=start_time).first()


@retried
@transaction.atomic
def book(
    *, held: Booking, caller: Caller, actor: User, at: datetime, notes: str, confirm: bool
) -> Booking:
    """Book a hold for the caller, who gets an account if they have none.

    Callers without an email address get an account, too: the next call finds them, and their
    bookings do not depend on the account of `actor`. If the booking is refused, no account is
    created.

    Raises:
        Invalid: the caller's account is not active.
        EmailTaken: somebody has just created an account with this email address.
        Booking.DoesNotExist, Forbidden, InvalidTransition: as in
            `bookings.services.book_hold_for`.
    """
    # `book_hold_for` checks this for the caller's account, but only after that account has been
    # looked up or created.
    services.check_books_for(held.user_id, actor)
    user = caller.customer or _account(caller, held, actor, at)
    written = {"name": caller.name, "email": caller.email, "phone": caller.phone}
    return services.book_hold_for(
        booking_id=held.pk,
        user=user,
        actor=actor,
        at=at,
        # Details that equal those of the account are not stored in the booking, so that a later
        # change of the account also applies to the booking.
        attendee={
            f"attendee_{name}": "" if text == getattr(user, name) else text
            for name, text in written.items()
        },
        notes=notes,
        confirm=confirm,
    )


def _account(caller: Caller, held: Booking, actor: User, at: datetime) -> User:
    if caller.email:
        known = User.objects.filter(email=caller.email).first()
    else:
        same = User.objects.all().without_mailbox(name=caller.name, phone=caller.phone)
        known = same.filter(is_active=True).order_by("id").first()
    if known is None:
        return accounts.add_customer(
            name=caller.name,
            email=caller.email,
            phone=caller.phone,
            timezone=held.calendar.timezone,
            # Customer and receptionist understand each other, so they probably share a language.
            language=actor.language,
            at=at,
        )
    if not known.is_active:
        raise Invalid.of("email", _("The account with this email address is not active."))
    return known
