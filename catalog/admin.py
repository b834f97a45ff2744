"""What is offered, in the admin site."""

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError

from bookit.times import format_wall_clock, parse_wall_clock
from catalog.models import Calendar, OpeningHours, Service


class WallClockFormField(forms.CharField):
    """Minutes after midnight, written as a time of day."""

    def prepare_value(self, value: Any) -> Any:
        """Return what stands in the input."""
        return format_wall_clock(value) if isinstance(value, int) else value

    def to_python(self, value: Any) -> Any:
        """Return the minutes."""
        try:
            return parse_wall_clock(str(value))
        except ValueError as error:
            raise ValidationError(str(error), code="invalid") from None

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Return whether another time was written."""
        return self.prepare_value(initial) != data


class OpeningHoursForm(forms.ModelForm):
    """A span of a weekday."""

    weekday = forms.TypedChoiceField(
        coerce=int,
        choices=list(
            enumerate(
                ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
            )
        ),
    )
    opens = WallClockFormField(help_text="09:00")
    closes = WallClockFormField(help_text="17:00, at most 24:00")

    class Meta:
        model = OpeningHours
        fields = ["weekday", "opens", "closes"]


class OpeningHoursInline(admin.TabularInline):
    """When a calendar is open."""

    model = OpeningHours
    form = OpeningHoursForm
    extra = 0


@admin.register(Calendar)
class CalendarAdmin(admin.ModelAdmin):
    """Whose time is sold."""

    list_display = ["name", "provider", "timezone", "created_at"]
    list_filter = ["timezone", "created_at"]
    list_select_related = ["provider"]
    search_fields = ["name", "provider__name", "provider__email", "id"]
    autocomplete_fields = ["provider"]
    readonly_fields = ["id", "created_at"]
    inlines = [OpeningHoursInline]


@admin.register(Service)
class ServiceAdmin(admin.ModelAdmin):
    """What is sold."""

    list_display = [
        "title",
        "calendar",
        "category",
        "price",
        "currency",
        "duration_minutes",
        "capacity",
        "is_active",
        "rating_average",
        "rating_count",
    ]
    list_filter = ["is_active", "mode", "category", "requires_confirmation"]
    list_select_related = ["calendar"]
    search_fields = ["title", "description", "calendar__name", "id"]
    autocomplete_fields = ["calendar"]
    readonly_fields = ["id", "rating_average", "rating_count", "created_at"]
    fieldsets = [
        (None, {"fields": ["id", "title", "description", "category", "calendar", "is_active"]}),
        ("Price", {"fields": ["price", "currency"]}),
        (
            "Time",
            {"fields": ["duration_minutes", "capacity", "mode", "step_minutes"]},
        ),
        (
            "Rules",
            {
                "fields": [
                    "requires_confirmation",
                    "buffer_before_minutes",
                    "buffer_after_minutes",
                    "min_notice_minutes",
                    "max_advance_days",
                    "cancellation_notice_minutes",
                ]
            },
        ),
        ("Ratings", {"fields": ["rating_average", "rating_count", "created_at"]}),
    ]

    def get_readonly_fields(self, request: Any, obj: Service | None = None) -> list[str]:
        """Return also the calendar, once there are bookings on it."""
        fixed = [*self.readonly_fields]
        return [*fixed, "calendar"] if obj and obj.bookings.exists() else fixed
