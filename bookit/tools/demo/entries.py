"""The contents of the town's files: a dataclass for each kind of TOML table, a field for each key.

The fields define the format: `reader` accepts exactly these keys and types.
`porto_claro/README.md` explains each key.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from unicodedata import normalize
from zoneinfo import ZoneInfo

from django.core.exceptions import ValidationError
from django.db.models import Model

from accounts.emails import canonical
from accounts.models import User
from bookit.tools.demo.dates import WeeklyHours, WeeklySessions, WeekTime, YearDay
from catalog.models import Calendar, Service, TimeOff
from catalog.opening import Span, is_endless
from reviews.models import Review


class TownError(Exception):
    """A file of the demo town contains a mistake.

    Args:
        source: the file, and the entry in it.
        mistake: a sentence that says what is wrong, or what to write instead.
    """

    def __init__(self, source: str, mistake: str) -> None:
        super().__init__(f"{source}: {mistake}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """A TOML table in one of the town's files.

    Entries are keys of dictionaries. With `eq=False`, they are compared and hashed by identity, not
    by all of their fields.

    Args:
        source: the file, and the place of the table in the file, for messages.
    """

    source: str


@dataclass(frozen=True, kw_only=True, eq=False)
class PasswordsEntry(Entry):
    """The passwords, one for each role."""

    admin: str
    user: str
    provider: str


@dataclass(frozen=True, kw_only=True, eq=False)
class SettingsEntry(Entry):
    """The whole of `town.toml`: the settings that apply to everybody."""

    timezone: ZoneInfo
    currency: str
    seed: int
    holidays: tuple[YearDay, ...]
    cancellation_reasons: tuple[str, ...]
    shown_accounts: tuple[str, ...]
    passwords: PasswordsEntry

    def __post_init__(self) -> None:
        """Refuse an unknown currency, and an empty list of cancellation reasons."""
        _check(Service, currency=self.currency)
        if not self.cancellation_reasons:
            raise ValueError("cancellation_reasons needs at least one reason.")


@dataclass(frozen=True, kw_only=True, eq=False)
class PersonEntry(Entry):
    """A user whose email address is not derived from their name."""

    name: str
    email: str

    def __post_init__(self) -> None:
        """Refuse values that cannot be stored as they are written."""
        _check_user(self.name, self.email)


@dataclass(frozen=True, kw_only=True, eq=False)
class MainCustomerEntry(PersonEntry):
    """The customer who books often, at the calendars in `regular_at`."""

    regular_at: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class PeopleEntry(Entry):
    """The whole of `people.toml`: everybody except the owners of businesses."""

    admin: PersonEntry
    main_customer: MainCustomerEntry
    women: tuple[str, ...]
    men: tuple[str, ...]
    children: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse names that cannot become an email address, and an empty list of children."""
        for name in self.women + self.men:
            try:
                _check(User, name=name, email=email_of(name))
            except ValidationError:
                raise ValueError(
                    f'No email address can be derived from the name "{name}".'
                ) from None
        if not self.children:
            raise ValueError("children needs at least one name.")


@dataclass(frozen=True, kw_only=True, eq=False)
class ReviewEntry(Entry):
    """A review that a customer may write."""

    rating: int
    comment: str

    def __post_init__(self) -> None:
        """Refuse values that the review's columns refuse."""
        _check(Review, rating=self.rating, comment=self.comment)


@dataclass(frozen=True, kw_only=True, eq=False)
class TimeOffEntry(Entry):
    """A period in which a calendar is closed."""

    week: int
    starts: WeekTime
    ends: WeekTime
    reason: str

    def __post_init__(self) -> None:
        """Refuse values that the columns of time off refuse, and an end that is not later."""
        _check(TimeOff, reason=self.reason)
        if self.ends <= self.starts:
            raise ValueError("It must end after it starts, in the same week.")


@dataclass(frozen=True, kw_only=True, eq=False)
class ServiceEntry(Entry):
    """A service. A field that has the name of a column sets that column."""

    title: str
    category: str
    price: Decimal
    duration_minutes: int
    description: str
    # If a field is None, the column keeps its default.
    mode: str | None = None
    capacity: int | None = None
    requires_confirmation: bool | None = None
    is_active: bool | None = None
    step_minutes: int | None = None
    buffer_before_minutes: int | None = None
    buffer_after_minutes: int | None = None
    min_notice_minutes: int | None = None
    max_advance_days: int | None = None
    cancellation_notice_minutes: int | None = None
    # The fields below say how the demo books and reviews the service.
    sessions: tuple[WeeklySessions, ...] = ()
    next_session_full: bool = False
    share: int = 1
    for_children: bool = False
    reviews: tuple[ReviewEntry, ...] = ()

    def __post_init__(self) -> None:
        """Refuse values that the service's columns refuse, or that the demo cannot work with."""
        _check(Service, **self.columns)
        if self.share < 1:
            raise ValueError("share must be at least 1.")
        has_slots = self.mode == Service.Mode.SLOTS and self.is_active is not False
        if has_slots and not self.sessions:
            raise ValueError('mode = "slots" needs sessions.')
        if self.next_session_full and not has_slots:
            raise ValueError('next_session_full needs mode = "slots" and an active service.')

    @property
    def columns(self) -> dict[str, Any]:
        """The columns of the service that this entry sets."""
        columns = {field.name for field in Service._meta.fields}
        return {
            name: value
            for name, value in vars(self).items()
            if name in columns and value is not None
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class CalendarEntry(Entry):
    """A calendar with its services, and how busy it is."""

    name: str
    opening_hours: tuple[WeeklyHours, ...]
    services: tuple[ServiceEntry, ...]
    demand: float
    regulars: int
    days_between_visits: int
    men_only: bool = False
    time_off: tuple[TimeOffEntry, ...] = ()
    notes: tuple[str, ...] = ()
    reviews: tuple[ReviewEntry, ...] = ()

    def __post_init__(self) -> None:
        """Refuse values that the calendar's columns refuse, or that the demo cannot work with."""
        _check(Calendar, name=self.name)
        if is_endless(self.spans):
            raise ValueError("opening_hours must not be empty, nor cover the whole week.")
        if not self.services:
            raise ValueError("A calendar needs at least one service.")
        if not 0 <= self.demand <= 1:
            raise ValueError("demand must be a number from 0 to 1.")
        if self.days_between_visits < 1:
            raise ValueError("days_between_visits must be at least 1.")

    @property
    def spans(self) -> tuple[Span, ...]:
        """The opening hours, one span after the other."""
        return tuple(
            Span(weekday, opens, closes)
            for hours in self.opening_hours
            for weekday in hours.weekdays
            for opens, closes in hours.spans
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class BusinessEntry(Entry):
    """The whole of a file in `businesses/`: an owner and their calendars."""

    owner: str
    email: str
    calendars: tuple[CalendarEntry, ...]

    def __post_init__(self) -> None:
        """Refuse values that cannot be stored as they are written."""
        _check_user(self.owner, self.email)


def email_of(name: str) -> str:
    """Return a customer's email address, without accents: `jose.sa@example.com` for José Sá."""
    plain = normalize("NFKD", name).encode("ascii", "ignore").decode()
    return f"{plain.lower().replace(' ', '.')}@example.com"


def _check_user(name: str, email: str) -> None:
    """Refuse values that a user's columns refuse, and an address that is stored differently.

    Raises:
        ValidationError: a column refuses its value.
        ValueError: the address is not written as it is stored.
    """
    _check(User, name=name, email=email)
    stored = canonical(email)
    if email != stored:
        raise ValueError(f"email: Write this address as {stored}.")


def _check(model: type[Model], **columns: Any) -> None:
    """Refuse values that the columns of a model refuse.

    Raises:
        ValidationError: a column refuses its value.
    """
    others = {field.name for field in model._meta.fields} - columns.keys()
    model(**columns).clean_fields(exclude=others)
