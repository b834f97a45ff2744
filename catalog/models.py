"""Calendars, their opening hours and time off, and the services that are booked on them."""

from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import ArrayField, RangeOperators
from django.contrib.postgres.indexes import GinIndex, OpClass
from django.contrib.postgres.search import SearchVector, SearchVectorField
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Func, Q, Value
from django.db.models.expressions import Col
from django.db.models.functions import Cast, Now, NullIf, Round, Upper
from django.db.models.lookups import Exact
from django.utils.dates import WEEKDAYS_ABBR
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from bookit import money
from bookit.database.citus.layout import Layout
from bookit.database.citus.lookups import calendar_of
from bookit.database.metadata import MetadataField, metadata_fits
from bookit.times import format_wall_clock, validate_zone
from catalog import triggers

# A leap year. A longer duration, buffer or notice must be a typing error.
MAX_MINUTES = 366 * 24 * 60
# The most seats of a service and of a slot.
MAX_CAPACITY = 1000
# The longest booking horizon, ten years.
MAX_ADVANCE_DAYS = 3660


class Calendar(models.Model):
    """The time of a person, a room, a court and so on. It hosts one service at a time."""

    layout = Layout.EVERYWHERE

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=200)
    timezone = models.CharField(max_length=64, default="UTC", validators=[validate_zone])
    provider = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="calendars",
    )
    # Triggers raise the version whenever the terms of the calendar's services, its opening hours,
    # its time off or its time zone change (`catalog.triggers`). `bookings.availability.terms`
    # explains how bookings use the version.
    version = models.PositiveBigIntegerField(db_default=0, editable=False)
    metadata = MetadataField()
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["name", "id"]
        indexes = [
            models.Index(fields=["name", "id"], name="calendar_by_name"),
            models.Index(fields=["created_at", "id"], name="calendar_by_age"),
            # For the search of the admin site.
            GinIndex(OpClass(Upper("name"), name="gin_trgm_ops"), name="calendar_by_letters"),
        ]
        constraints = [
            # This constraint makes the version part of a key. While one transaction has locked a
            # row FOR KEY SHARE, no other transaction can change the row's keys (PostgreSQL's
            # manual, 13.3.2).
            models.UniqueConstraint(fields=["id", "version"], name="calendar_version"),
            metadata_fits("calendar_metadata_fits"),
            triggers.VERSION_RISES,
            triggers.CALENDAR_UPDATED_AT,
        ]

    def __str__(self) -> str:
        return self.name


class OnCalendar(models.Model):
    """A row that belongs to a calendar, and stays on it.

    Every statement that locks or changes such a row names its calendar as well as its id. A single
    server needs only the id. In a distributed database (Citus), the calendar determines the server
    that has the row, unless every server has it (`layout`).
    """

    layout = Layout.BY_CALENDAR

    # Unless a model overrides it, this is not a foreign key in the database. Most models have a
    # foreign key to a booking, slot or service instead, and the calendar is one of its columns.
    calendar = models.ForeignKey(
        Calendar, on_delete=models.DO_NOTHING, related_name="+", db_index=False, db_constraint=False
    )

    class Meta:
        abstract = True

    @classmethod
    def calendar_of(cls, pk: Any) -> UUID:
        """Return the id of the calendar of a row.

        Raises:
            DoesNotExist: there is no row with this id.
        """
        return calendar_of(cls, pk)

    @classmethod
    def with_id(cls, pk: Any, calendar_id: UUID | None = None) -> Any:
        """Return a queryset that finds a row by its calendar and its id.

        Args:
            calendar_id: the calendar. If it is not known, another query looks it up first.

        Raises:
            DoesNotExist: the calendar is not known, and there is no row with this id.
        """
        calendar_id = calendar_id or cls.calendar_of(pk)
        return cls._default_manager.filter(calendar=calendar_id, pk=pk)

    def _do_update(self, base_qs: Any, using: Any, pk_val: Any, values: Any, *args: Any) -> Any:
        own = base_qs.filter(calendar=self.calendar_id)
        # Citus refuses statements that set the calendar, so the calendar is left out. A statement
        # that sets nothing else still sets the calendar, so that the caller gets an error.
        changes = [each for each in values if each[0].name != "calendar"] or values
        return super()._do_update(own, using, pk_val, changes, *args)

    def refresh_from_db(
        self, using: Any = None, fields: Any = None, from_queryset: Any = None
    ) -> None:
        """Read columns again, by the calendar and the id of the row."""
        rows = from_queryset
        if rows is None:
            rows = type(self)._base_manager.db_manager(using, {"instance": self}).all()
        if "calendar_id" in vars(self):  # It is missing while Django reads it as a deferred column.
            rows = rows.filter(calendar=self.calendar_id)
        super().refresh_from_db(using, fields, rows)

    def delete(self, using: Any = None, keep_parents: bool = False) -> tuple[int, dict[str, int]]:
        """Delete the row in one statement. The database decides about rows that refer to it."""
        rows = type(self)._base_manager.using(using)
        own = rows.filter(calendar=self.calendar_id, pk=self.pk)
        deleted = own._raw_delete(own.db)
        return deleted, {self._meta.label: deleted}


class _SameCalendar:
    """A reference between rows of one calendar. A join compares their calendars, too.

    A single server needs only the ids. In a distributed database (Citus), equal calendars show that
    both rows are on the same server.
    """

    def get_extra_restriction(self, alias: Any, related_alias: Any) -> Exact:
        """Return an additional condition for joins, as Django's generic relations do."""
        field: Any = self
        columns = (
            Col(name, model._meta.get_field("calendar"))
            for name, model in (
                (alias, field.remote_field.model),
                (related_alias, field.model),
            )
        )
        return Exact(*columns)

    def deconstruct(self) -> Any:
        """Let migrations name Django's own field class, because the column is the same."""
        name, _path, args, options = super().deconstruct()  # type: ignore[misc]
        base = next(each for each in type(self).__mro__ if each.__module__.startswith("django."))
        return name, f"django.db.models.{base.__name__}", args, options


class SameCalendarKey(_SameCalendar, models.ForeignKey):  # type: ignore[misc]
    """A foreign key to a row of the same calendar."""


class SameCalendarOneToOne(_SameCalendar, models.OneToOneField):  # type: ignore[misc]
    """A one-to-one reference to a row of the same calendar."""


class OpeningHours(OnCalendar):
    """A span of a weekday in which a calendar is open, in the calendar's wall-clock time.

    Times are stored as minutes after midnight, because Python's `time` has no 24:00.
    """

    layout = Layout.EVERYWHERE

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    calendar = models.ForeignKey(Calendar, on_delete=models.CASCADE, related_name="hours")
    weekday = models.PositiveSmallIntegerField(help_text="0 is Monday, 6 is Sunday.")
    opens = models.PositiveSmallIntegerField(help_text=_("Minutes after midnight."))
    closes = models.PositiveSmallIntegerField(help_text=_("Minutes after midnight, at most 1440."))

    class Meta:
        ordering = ["calendar", "weekday", "opens", "id"]
        verbose_name_plural = _("opening hours")
        constraints = [
            models.CheckConstraint(condition=Q(weekday__lte=6), name="opening_hours_weekday"),
            models.CheckConstraint(
                condition=Q(closes__gt=F("opens"), closes__lte=1440), name="opening_hours_span"
            ),
            ExclusionConstraint(
                name="opening_hours_apart",
                expressions=[
                    ("calendar", RangeOperators.EQUAL),
                    ("weekday", RangeOperators.EQUAL),
                    (
                        Func(
                            Cast("opens", models.IntegerField()),
                            Cast("closes", models.IntegerField()),
                            function="int4range",
                        ),
                        RangeOperators.OVERLAPS,
                    ),
                ],
            ),
            triggers.HOURS_CHANGE_VERSION,
        ]

    def __str__(self) -> str:
        return f"{WEEKDAYS_ABBR[self.weekday]} {self.times()}"

    def times(self) -> str:
        """Return the times without the weekday, for example `09:00-17:30`."""
        return f"{format_wall_clock(self.opens)}-{format_wall_clock(self.closes)}"


class TimeOff(OnCalendar):
    """A period in which a calendar is closed, whatever its opening hours say."""

    layout = Layout.EVERYWHERE

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    calendar = models.ForeignKey(
        Calendar, on_delete=models.CASCADE, related_name="time_off", db_index=False
    )
    start_time = models.DateTimeField()
    end_time = models.DateTimeField()
    reason = models.CharField(max_length=200, blank=True, default="")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["start_time", "id"]
        verbose_name_plural = _("time off")
        indexes = [
            models.Index(fields=["calendar", "start_time", "id"], name="time_off_by_calendar")
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(end_time__gt=F("start_time")), name="time_off_not_empty"
            ),
            triggers.TIME_OFF_CHANGES_VERSION,
        ]

    def __str__(self) -> str:
        return f"{self.start_time:%Y-%m-%d %H:%M} \N{EN DASH} {self.end_time:%Y-%m-%d %H:%M} UTC"


def default_currency() -> str:
    """Return the currency of services that are created without one."""
    code: str = settings.DEFAULT_CURRENCY
    return code


def average_rating(total: int, count: int, *, decimals: int = 2) -> Decimal:
    """Return an average, rounded as PostgreSQL rounds `Service.rating_average`: 4.125 to 4.13."""
    return (Decimal(total) / count).quantize(Decimal(10) ** -decimals, ROUND_HALF_UP)


def _words(field: str) -> Func:
    """Return an expression for the words of a text field, separated by spaces."""
    return Func(
        F(field),
        Value(f"[{triggers.DIVIDERS}]+"),
        Value(" "),
        Value("g"),
        function="REGEXP_REPLACE",
        output_field=models.TextField(),
    )


class Service(models.Model):
    """What customers book on a calendar: up to `capacity` bookings at a time, one in each seat.

    A slot has its own capacity.
    """

    layout = Layout.EVERYWHERE

    class Mode(models.TextChoices):
        """When a service can be booked."""

        OPEN = "open", _("any time inside the opening hours")
        SLOTS = "slots", _("published slots only")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    calendar = models.ForeignKey(Calendar, on_delete=models.RESTRICT, related_name="services")
    title = models.CharField(max_length=200)
    description = models.TextField(max_length=10_000, blank=True, default="")
    category = models.CharField(max_length=100, blank=True, default="", db_index=True)
    price = models.DecimalField(
        max_digits=money.DIGITS,
        decimal_places=money.DECIMALS,
        help_text=_("Must not have more decimals than the currency."),
        validators=[MinValueValidator(Decimal(0))],
    )
    currency = models.CharField(
        max_length=3,
        default=default_currency,
        help_text=_("The ISO 4217 code of a currency in use."),
        validators=[money.validate_currency],
    )
    duration_minutes = models.PositiveIntegerField(
        validators=[MinValueValidator(1), MaxValueValidator(MAX_MINUTES)]
    )
    capacity = models.PositiveIntegerField(
        default=1, validators=[MinValueValidator(1), MaxValueValidator(MAX_CAPACITY)]
    )
    mode = models.CharField(max_length=5, choices=Mode, default=Mode.OPEN)
    requires_confirmation = models.BooleanField(default=True)
    buffer_before_minutes = models.PositiveIntegerField(
        default=0, validators=[MaxValueValidator(MAX_MINUTES)]
    )
    buffer_after_minutes = models.PositiveIntegerField(
        default=0, validators=[MaxValueValidator(MAX_MINUTES)]
    )
    min_notice_minutes = models.PositiveIntegerField(
        default=0, validators=[MaxValueValidator(MAX_MINUTES)]
    )
    max_advance_days = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_ADVANCE_DAYS)],
    )
    cancellation_notice_minutes = models.PositiveIntegerField(
        default=0, validators=[MaxValueValidator(MAX_MINUTES)]
    )
    step_minutes = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text=_("The interval between the start times offered; if empty, the duration."),
        validators=[MinValueValidator(1), MaxValueValidator(MAX_MINUTES)],
    )
    is_active = models.BooleanField("active", default=True)
    # Stored as sum and count, so that a new review can be added without reading the older ones.
    rating_sum = models.PositiveBigIntegerField(default=0, editable=False)
    rating_count = models.PositiveIntegerField(default=0, editable=False)
    rating_average = models.GeneratedField(
        expression=Round(
            Cast(F("rating_sum"), models.DecimalField(max_digits=20, decimal_places=2))
            / NullIf(F("rating_count"), 0),
            precision=2,
        ),
        output_field=models.DecimalField(max_digits=3, decimal_places=2, null=True),
        db_persist=True,
    )
    search = models.GeneratedField(
        expression=SearchVector(_words("title"), weight="A", config="english")
        + SearchVector(_words("description"), weight="B", config="english"),
        output_field=SearchVectorField(),
        db_persist=True,
    )
    # A search ranks services by their titles alone. `search` can be so large that PostgreSQL stores
    # it outside the row, where reading it is slow, so the title's words also have their own column.
    title_words = models.GeneratedField(
        expression=SearchVector(_words("title"), config="english"),
        output_field=SearchVectorField(),
        db_persist=True,
    )
    metadata = MetadataField()
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["title", "id"]
        indexes = [
            # Most lists show only active services. `is_active` is in the next four indexes, so
            # PostgreSQL skips the services of earlier pages, and counts those in a range of prices,
            # without reading the table.
            models.Index(fields=["title", "id"], include=["is_active"], name="service_by_title"),
            models.Index(fields=["price", "id"], include=["is_active"], name="service_by_price"),
            models.Index(fields=["created_at", "id"], include=["is_active"], name="service_by_age"),
            models.Index(
                fields=["duration_minutes", "id"], include=["is_active"], name="service_by_duration"
            ),
            models.Index(fields=["rating_average", "id"], name="service_by_rating"),
            # Lists show services without ratings last. If PostgreSQL reads `service_by_rating`
            # backwards, these services come first.
            models.Index(
                F("rating_average").desc(nulls_last=True),
                F("id").desc(),
                name="service_by_best_rating",
            ),
            # Few services are inactive, and few have slots. Without these indexes, a list of them
            # would read all services.
            models.Index(
                fields=["title", "id"], name="service_inactive", condition=Q(is_active=False)
            ),
            models.Index(fields=["mode", "title", "id"], name="service_by_mode"),
            # Active services are counted in this index, which is a tenth of the size of the table.
            models.Index(fields=["id"], name="service_active", condition=Q(is_active=True)),
            # For the search of the admin site.
            GinIndex(OpClass(Upper("title"), name="gin_trgm_ops"), name="service_by_letters"),
            # A filter by category ignores case. The index also contains the column itself: without
            # it, PostgreSQL would read the table as well.
            models.Index(
                Upper("category"),
                "title",
                "id",
                include=["category", "is_active"],
                name="service_by_category",
            ),
            # With `fastupdate`, each search would also read the whole list of pending entries.
            GinIndex(fields=["search", "title_words"], name="service_words", fastupdate=False),
        ]
        constraints = [
            # The foreign keys of bookings, slots and reviews refer to both columns.
            models.UniqueConstraint(fields=["id", "calendar"], name="service_calendar_pair"),
            models.CheckConstraint(condition=Q(price__gte=0), name="service_price_not_negative"),
            models.CheckConstraint(
                condition=Q(duration_minutes__gte=1), name="service_duration_positive"
            ),
            models.CheckConstraint(condition=Q(capacity__gte=1), name="service_capacity_positive"),
            models.CheckConstraint(
                condition=Q(mode__in=["open", "slots"]), name="service_mode_known"
            ),
            models.CheckConstraint(
                condition=Q(currency__regex=r"^[A-Z]{3}$"), name="service_currency_code"
            ),
            metadata_fits("service_metadata_fits"),
            triggers.TERMS_CHANGE_VERSION,
            triggers.SERVICE_UPDATED_AT,
            triggers.WORDS_ARE_KNOWN,
            triggers.CATEGORIES_ARE_COUNTED,
        ]

    def __str__(self) -> str:
        return self.title

    @property
    def provider_id(self) -> object:
        """The id of the calendar's provider, or None."""
        return self.calendar.provider_id


class Word(models.Model):
    """A word of a service's title or description. A search looks up misspelt words here.

    A trigger adds the words of 4 to 40 letters. The words of former services stay.
    """

    text = models.CharField(primary_key=True, max_length=40, db_collation="C")
    spellings = ArrayField(
        models.TextField(),
        help_text="The word itself, and the word with any one of its letters left out.",
    )

    class Meta:
        indexes = [
            GinIndex(fields=["spellings"], name="word_by_spelling", fastupdate=False),
            GinIndex(
                fields=["text"],
                opclasses=["gin_trgm_ops"],
                name="word_by_trigrams",
                fastupdate=False,
            ),
        ]

    def __str__(self) -> str:
        return self.text
