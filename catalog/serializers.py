"""Serializers of calendars, time off and services."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, ClassVar

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import OuterRef, QuerySet, Subquery
from django.db.models.functions import JSONObject
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from bookit.api.metadata import MetadataField
from bookit.api.schema import SOMETIMES, example
from bookit.api.serializers import ListField, RowSerializer, StrictSerializer
from bookit.money import in_currency
from bookit.times import InstantField, format_wall_clock, parse_wall_clock
from catalog.extensions import Affected
from catalog.models import MAX_MINUTES, Calendar, OpeningHours, Service, TimeOff
from catalog.opening import Span, is_endless

# Fields that some responses have in addition to the fields of the serializer. In a request they are
# ignored, so clients can send a response back.
RESPONSE_ONLY = frozenset({"affected_bookings"})
ONE_AFFECTED = {"count": 1, "ids": ["0199d3a4-02aa-7d0c-9b1f-6f0e5b8f2a11"]}


class PrivateFieldsSerializer(RowSerializer):
    """A resource that anyone can read. Only users who may change it see its private fields."""

    private_fields: ClassVar[tuple[str, ...]] = ("metadata",)

    metadata = MetadataField()

    @classmethod
    def rows(cls, queryset: QuerySet[Any]) -> QuerySet[Any, dict[str, Any]]:
        """Return the rows without the private fields."""
        return cls._rows(queryset, exclude=cls.private_fields)

    @classmethod
    def private_rows(cls, queryset: QuerySet[Any]) -> QuerySet[Any, dict[str, Any]]:
        """Return the rows with the private fields."""
        return cls._rows(queryset)

    @classmethod
    def _rows(cls, queryset: QuerySet[Any], exclude: Iterable[str] = ()) -> QuerySet[Any, Any]:
        columns = [name for name in cls.Meta.fields if name not in exclude]
        return queryset.annotate(**cls.annotations).values(*columns)

    @classmethod
    def represent_instance(cls, instance: Any) -> dict[str, Any]:
        """Return the representation without the private fields."""
        row = cls.represent_private(instance)
        return {name: row[name] for name in row if name not in cls.private_fields}

    @classmethod
    def represent_private(cls, instance: Any) -> dict[str, Any]:
        """Return the representation with the private fields."""
        return cls.represent({name: getattr(instance, name) for name in cls.Meta.fields})


class AffectedBookingsSerializer(serializers.Serializer[Any]):
    """Bookings that have not ended and are outside the open times. They are kept."""

    count = serializers.IntegerField(min_value=0)
    ids = ListField(
        child=serializers.UUIDField(),
        max_length=100,
        help_text="The ids of at most 100 bookings, the earliest first.",
    )

    @classmethod
    def represent(cls, affected: Affected) -> dict[str, Any]:
        """Return the affected bookings as a client sees them."""
        return {"count": affected.count, "ids": [pk for pk, _ in affected.first]}


@extend_schema_field(
    {"type": "string", "pattern": r"^([01]\d|2[0-3]):[0-5]\d$|^24:00$", "example": "09:00"}
)
class WallClockField(serializers.Field[int, str, str, Any]):
    """A time of day, `00:00` to `24:00`. In Python, it is the number of minutes after midnight."""

    def to_internal_value(self, data: Any) -> int:
        """Return the minutes after midnight."""
        try:
            return parse_wall_clock(str(data))
        except ValueError as error:
            raise serializers.ValidationError(str(error), code="invalid") from None

    def to_representation(self, value: int) -> str:
        """Return the time as text."""
        return format_wall_clock(value)


class OpeningHoursSerializer(StrictSerializer):
    """A span of a weekday in which a calendar is open, in the calendar's local time."""

    weekday = serializers.IntegerField(
        min_value=0, max_value=6, help_text="0 is Monday, 6 is Sunday."
    )
    opens = WallClockField()
    closes = WallClockField()

    def validate(self, attrs: dict[str, int]) -> dict[str, int]:
        """Refuse a span that is incomplete or does not end after it begins."""
        # DRF requires no field in a PATCH, but each span must be complete.
        missing = [str(name) for name in self.fields if name not in attrs]
        if missing:
            raise serializers.ValidationError(
                {name: [_("This field is required.")] for name in missing}, code="required"
            )
        if attrs["closes"] <= attrs["opens"]:
            raise serializers.ValidationError(
                {"closes": [_("The closing time must be after the opening time.")]}
            )
        return attrs


MONDAY_TO_FRIDAY = {
    "name": "Rui's chair",
    "timezone": "Europe/Lisbon",
    "opening_hours": [{"weekday": day, "opens": "09:00", "closes": "18:00"} for day in range(5)],
}
STORED_CALENDAR = {
    "id": "0199d3a0-6a31-7e8a-a0f5-3e6a4c1b8d07",
    "always_open": False,
    "provider_id": "0199d3a0-5b1c-7d3e-9c4b-2a7f8e6d5c31",
    "created_at": "2026-11-21T09:00:00Z",
    "updated_at": "2026-11-21T09:00:00Z",
}


@extend_schema_serializer(extensions={SOMETIMES: ["metadata"]})
@example("Monday to Friday", MONDAY_TO_FRIDAY, response=STORED_CALENDAR)
class CalendarSerializer(PrivateFieldsSerializer):
    """A calendar: a person, a room or anything else whose time can be booked."""

    ignored: ClassVar[frozenset[str]] = RESPONSE_ONLY

    provider_id = serializers.UUIDField(required=False, allow_null=True)
    opening_hours = OpeningHoursSerializer(  # type: ignore[call-arg]
        many=True,
        required=False,
        help_text="If empty, the calendar is always open.",
        max_length=100,
    )
    always_open = serializers.BooleanField(
        read_only=True,
        help_text=(
            "Whether `opening_hours` is empty or leaves no gap. Time off closes the "
            "calendar even then."
        ),
    )

    annotations = {
        "opening_hours": ArraySubquery(
            OpeningHours.objects.filter(calendar=OuterRef("pk"))
            .order_by("weekday", "opens")
            .values(span=JSONObject(weekday="weekday", opens="opens", closes="closes"))
        )
    }

    class Meta:
        model = Calendar
        fields = [
            *("id", "name", "timezone", "provider_id", "opening_hours", "always_open"),
            *("metadata", "created_at", "updated_at"),
        ]
        read_only_fields = ["id", "created_at", "updated_at"]

    @classmethod
    def _rows(cls, queryset: QuerySet[Any], exclude: Iterable[str] = ()) -> QuerySet[Any, Any]:
        """Return the rows without `always_open`, which `represent` computes from the hours."""
        return super()._rows(queryset, exclude=[*exclude, "always_open"])

    @classmethod
    def represent(cls, row: dict[str, Any]) -> dict[str, Any]:
        """Add `always_open`, and format times of day."""
        hours = row["opening_hours"]
        row["always_open"] = is_endless(tuple(Span(**span) for span in hours))
        row["opening_hours"] = [
            {
                **span,
                "opens": format_wall_clock(span["opens"]),
                "closes": format_wall_clock(span["closes"]),
            }
            for span in hours
        ]
        return row

    @classmethod
    def represent_private(cls, instance: Calendar) -> dict[str, Any]:
        """Return the representation with the private fields."""
        return cls.represent(cls.private_rows(Calendar.objects.filter(pk=instance.pk)).get())

    def validate_opening_hours(self, spans: list[dict[str, int]]) -> list[dict[str, int]]:
        """Refuse overlapping spans of the same day."""
        ordered = sorted(spans, key=lambda span: (span["weekday"], span["opens"]))
        for first, second in pairwise(ordered):
            if first["weekday"] == second["weekday"] and second["opens"] < first["closes"]:
                raise serializers.ValidationError(_("The opening hours of a day must not overlap."))
        return spans


@example(
    "Monday to Friday", {**MONDAY_TO_FRIDAY, **STORED_CALENDAR, "affected_bookings": ONE_AFFECTED}
)
class ChangedCalendarSerializer(CalendarSerializer):
    """The changed calendar, and the bookings that are now outside its open times."""

    affected_bookings = AffectedBookingsSerializer(
        read_only=True, help_text="Empty unless `opening_hours` or `timezone` was sent."
    )

    class Meta(CalendarSerializer.Meta):
        fields = [*CalendarSerializer.Meta.fields, "affected_bookings"]


AUGUST = {
    "start_time": "2026-08-01T00:00:00Z",
    "end_time": "2026-09-01T00:00:00Z",
    "reason": "Summer holidays",
}
STORED_TIME_OFF = {
    "id": "0199d3a6-4d1e-7b2a-8c3d-5e6f7a8b9c0d",
    "calendar_id": STORED_CALENDAR["id"],
    "created_at": "2026-03-01T09:00:00Z",
}


@example("August", AUGUST, response=STORED_TIME_OFF)
class TimeOffSerializer(RowSerializer):
    """A period in which a calendar is closed, whatever its opening hours."""

    ignored: ClassVar[frozenset[str]] = RESPONSE_ONLY

    calendar_id = serializers.UUIDField(read_only=True)
    start_time = InstantField()
    end_time = InstantField(help_text="At most 10 years after the start.")

    class Meta:
        model = TimeOff
        fields = ["id", "calendar_id", "start_time", "end_time", "reason", "created_at"]
        read_only_fields = ["id", "created_at"]


@example("August", {**AUGUST, **STORED_TIME_OFF, "affected_bookings": ONE_AFFECTED})
class CreatedTimeOffSerializer(TimeOffSerializer):
    """New time off, and the bookings in its period."""

    affected_bookings = AffectedBookingsSerializer(read_only=True)

    class Meta(TimeOffSerializer.Meta):
        fields = [*TimeOffSerializer.Meta.fields, "affected_bookings"]


HAIRCUT = {
    "title": "Haircut",
    "description": "Wash, cut and finish.",
    "category": "Barber",
    "price": "25.00",
    "currency": "EUR",
    "duration_minutes": 30,
}
STORED_SERVICE = {
    "id": "0199d3a0-6a3b-7c55-8f0d-1f6f2b7c9d42",
    "capacity": 1,
    "mode": "open",
    "requires_confirmation": True,
    "buffer_before_minutes": 0,
    "buffer_after_minutes": 0,
    "min_notice_minutes": 0,
    "max_advance_days": None,
    "cancellation_notice_minutes": 0,
    "step_minutes": 30,
    "is_active": True,
    "calendar_id": STORED_CALENDAR["id"],
    "provider_id": STORED_CALENDAR["provider_id"],
    "rating_average": 4.67,
    "rating_count": 3,
    "metadata": {"sku": "cut-30"},
    "created_at": "2026-11-21T09:00:00Z",
    "updated_at": "2026-11-21T09:00:00Z",
}


@extend_schema_serializer(extensions={SOMETIMES: ["metadata"]})
@example("A haircut", HAIRCUT, response=STORED_SERVICE)
class ServiceSerializer(PrivateFieldsSerializer):
    """A service: what can be booked on a calendar."""

    expanded: ClassVar[frozenset[str]] = frozenset({"calendar"})

    calendar_id = serializers.UUIDField(
        required=False, help_text="If omitted, the service gets a calendar of its own."
    )
    provider_id = serializers.UUIDField(read_only=True, allow_null=True)
    step_minutes = serializers.IntegerField(
        required=False,
        allow_null=True,
        min_value=1,
        # The same limit as for the duration: if no step is set, responses show the duration as the
        # step, and clients may send it back.
        max_value=MAX_MINUTES,
        help_text="The interval between the start times offered; by default the duration.",
    )
    rating_average = serializers.FloatField(
        read_only=True,
        allow_null=True,
        min_value=1,
        max_value=5,
        help_text="Null without reviews.",
    )

    # This subquery runs only for the rows that are shown. A join could make PostgreSQL read all
    # calendars first, if its statistics were collected before the calendars were created.
    annotations = {
        "provider_id": Subquery(
            Calendar.objects.order_by().filter(pk=OuterRef("calendar_id")).values("provider_id")
        )
    }

    class Meta:
        model = Service
        fields = [
            "id",
            "title",
            "description",
            "price",
            "currency",
            "duration_minutes",
            "capacity",
            "mode",
            "requires_confirmation",
            "buffer_before_minutes",
            "buffer_after_minutes",
            "min_notice_minutes",
            "max_advance_days",
            "cancellation_notice_minutes",
            "step_minutes",
            "category",
            "is_active",
            "calendar_id",
            "provider_id",
            "rating_average",
            "rating_count",
            "metadata",
            "created_at",
            "updated_at",
        ]
        read_only_fields = ["id", "rating_count", "created_at", "updated_at"]

    @classmethod
    def represent(cls, row: dict[str, Any]) -> dict[str, Any]:
        """Format the price, convert the average to a float, and fill in the default step."""
        row["price"] = in_currency(row["price"], row["currency"])
        row["step_minutes"] = row["step_minutes"] or row["duration_minutes"]
        if row["rating_average"] is not None:
            row["rating_average"] = float(row["rating_average"])
        return row


@example(
    "A haircut on a calendar of its own",
    {
        **HAIRCUT,
        **STORED_SERVICE,
        "rating_average": None,
        "rating_count": 0,
        "calendar": {
            **STORED_CALENDAR,
            "name": "Haircut",
            "timezone": "Europe/Lisbon",
            "opening_hours": [],
            "always_open": True,
        },
    },
)
class CreatedServiceSerializer(ServiceSerializer):
    """The new service and its calendar. A new calendar is always open."""

    calendar = CalendarSerializer(read_only=True)

    class Meta(ServiceSerializer.Meta):
        fields = [*ServiceSerializer.Meta.fields, "calendar"]
