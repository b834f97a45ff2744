"""Shapes of what is offered."""

import re
from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import F, OuterRef
from django.db.models.functions import JSONObject
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from bookit.serializers import InputSerializer, RowSerializer
from catalog.models import Calendar, OpeningHours, Service


@extend_schema_field({"type": "string", "pattern": r"^([01]\d|2[0-3]):[0-5]\d$|^24:00$", "example": "09:00"})
class WallClockField(serializers.Field[int, str, str, Any]):
    """A time of day, `00:00` to `24:00`; in Python the minutes after midnight."""

    default_error_messages = {"invalid": "Write a time of day from 00:00 to 24:00."}

    def to_internal_value(self, data: Any) -> int:
        """Return the minutes after midnight."""
        match = isinstance(data, str) and re.fullmatch(r"(\d\d):(\d\d)", data, re.ASCII)
        if not match:
            self.fail("invalid")
        minutes = int(match[1]) * 60 + int(match[2])
        if int(match[2]) > 59 or minutes > 24 * 60:
            self.fail("invalid")
        return minutes

    def to_representation(self, value: int) -> str:
        """Return the time as text."""
        return f"{value // 60:02}:{value % 60:02}"


class OpeningHoursSerializer(InputSerializer):
    """A span of a weekday, in the calendar's wall-clock time."""

    weekday = serializers.IntegerField(min_value=0, max_value=6, help_text="0 is Monday.")
    opens = WallClockField()
    closes = WallClockField()

    def validate(self, attrs: dict[str, int]) -> dict[str, int]:
        """Refuse spans that end before they begin."""
        if attrs["closes"] <= attrs["opens"]:
            raise serializers.ValidationError({"closes": ["Closes after it opens."]})
        return attrs


class CalendarSerializer(RowSerializer):
    """A calendar: whose time is sold."""

    provider_id = serializers.UUIDField(required=False, allow_null=True)
    opening_hours = OpeningHoursSerializer(
        many=True, required=False, help_text="Empty: always open.", max_length=100
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
        fields = ["id", "name", "timezone", "provider_id", "opening_hours", "created_at"]
        read_only_fields = ["id", "created_at"]

    @classmethod
    def represent(cls, row: dict[str, Any]) -> dict[str, Any]:
        """Write times of day as text."""
        text = WallClockField().to_representation
        row["opening_hours"] = [
            {**span, "opens": text(span["opens"]), "closes": text(span["closes"])}
            for span in row["opening_hours"]
        ]
        return row

    @classmethod
    def represent_instance(cls, instance: Calendar) -> dict[str, Any]:  # type: ignore[override]
        """Return what the client sees of an instance."""
        return cls.represent(cls.rows(Calendar.objects.filter(pk=instance.pk)).get())

    def validate_opening_hours(self, spans: list[dict[str, int]]) -> list[dict[str, int]]:
        """Refuse spans of a day that overlap."""
        ordered = sorted(spans, key=lambda span: (span["weekday"], span["opens"]))
        for first, second in zip(ordered, ordered[1:], strict=False):
            if first["weekday"] == second["weekday"] and second["opens"] < first["closes"]:
                raise serializers.ValidationError("The hours of a day must not overlap.")
        return spans


class ServiceSerializer(RowSerializer):
    """A service: what is sold on a calendar."""

    calendar_id = serializers.UUIDField(
        required=False, help_text="Without it the service gets a calendar of its own."
    )
    provider_id = serializers.UUIDField(read_only=True, allow_null=True)
    step_minutes = serializers.IntegerField(
        required=False,
        allow_null=True,
        min_value=1,
        max_value=24 * 60,
        help_text="The grid on which times are offered; by default the duration.",
    )
    rating_average = serializers.FloatField(
        read_only=True, allow_null=True, min_value=1, max_value=5, help_text="Null before the first review."
    )

    annotations = {"provider_id": F("calendar__provider_id")}

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
            "created_at",
        ]
        read_only_fields = ["id", "rating_count", "created_at"]

    @classmethod
    def represent(cls, row: dict[str, Any]) -> dict[str, Any]:
        """Fill in the default step, and write the average as a number."""
        row["step_minutes"] = row["step_minutes"] or row["duration_minutes"]
        if row["rating_average"] is not None:
            row["rating_average"] = float(row["rating_average"])
        return row
