"""Calendars and services in the admin site."""

from calendar import day_name
from itertools import pairwise
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from bookit import money
from bookit.adminsite.filters import one_of
from bookit.adminsite.menu import Menu
from bookit.adminsite.pages import StampedAdmin
from bookit.errors import Invalid
from bookit.times import format_wall_clock, parse_wall_clock, zone
from catalog import services
from catalog.categories.choices import categories
from catalog.models import Calendar, OpeningHours, Service, TimeOff
from catalog.providers import admin as _  # noqa: F401 - the import registers its pages

WEEKDAYS = list(enumerate(day_name))
# A warning names at most this many affected bookings.
MAX_NAMED = 5


class WallClockFormField(forms.CharField):
    """A time of day, stored as minutes after midnight."""

    def prepare_value(self, value: Any) -> Any:
        """Return the time as text, for the input."""
        return format_wall_clock(value) if isinstance(value, int) else value

    def to_python(self, value: Any) -> Any:
        """Return the minutes after midnight."""
        try:
            return parse_wall_clock(str(value))
        except ValueError as error:
            raise ValidationError(str(error), code="invalid") from None

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Return whether the time was changed."""
        return self.prepare_value(initial) != data


class OpeningHoursForm(forms.ModelForm):
    """The form for a span of opening hours on a weekday."""

    weekday = forms.TypedChoiceField(
        coerce=int,
        choices=WEEKDAYS,
    )
    opens = WallClockFormField(help_text="09:00")
    closes = WallClockFormField(help_text="17:00, at most 24:00")

    class Meta:
        model = OpeningHours
        fields = ["weekday", "opens", "closes"]

    def clean(self) -> None:
        """Refuse a span that does not end after it begins. The constraint's message is unclear."""
        super().clean()
        opens, closes = self.cleaned_data.get("opens"), self.cleaned_data.get("closes")
        if opens is not None and closes is not None and closes <= opens:
            self.add_error("closes", "The closing time must be after the opening time.")

    def validate_constraints(self) -> None:
        """Do nothing. Only Django 6.1 and later call this method.

        They would compare the span with the stored spans, all of which `save_formset` replaces. The
        formset compares the new spans with each other.
        """


class OpeningHoursFormSet(forms.BaseInlineFormSet):
    """The forms for all opening hours of a calendar."""

    def clean(self) -> None:
        """Refuse overlapping spans of the same day.

        Raises:
            ValidationError: spans overlap; the message names the day.
        """
        super().clean()
        spans = sorted(self.spans(), key=lambda span: (span["weekday"], span["opens"]))
        for first, second in pairwise(spans):
            if first["weekday"] == second["weekday"] and second["opens"] < first["closes"]:
                raise ValidationError(f"The opening hours of {day_name[first['weekday']]} overlap.")

    def spans(self) -> list[dict[str, int]]:
        """Return the valid spans that are not marked for deletion."""
        return [
            {name: form.cleaned_data[name] for name in ("weekday", "opens", "closes")}
            for form in self.forms
            if form.is_valid() and form.cleaned_data and not form.cleaned_data.get("DELETE")
        ]


class CalendarPartInline(admin.TabularInline):
    """Rows that are part of a calendar. Users who may change the calendar may change them too."""

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may see calendars."""
        return request.user.has_perm("catalog.view_calendar") or self.has_add_permission(request)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may change calendars, or create this one."""
        name = "catalog.change_calendar" if obj else "catalog.add_calendar"
        return request.user.has_perm(name)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may change calendars."""
        return self.has_add_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may change calendars."""
        return self.has_add_permission(request, obj)


class OpeningHoursInline(CalendarPartInline):
    """The opening hours of a calendar."""

    model = OpeningHours
    form = OpeningHoursForm
    formset = OpeningHoursFormSet
    extra = 0


class TimeOffForm(forms.ModelForm):
    """The form for a period in which a calendar is closed."""

    class Meta:
        model = TimeOff
        fields = ["start_time", "end_time", "reason"]

    def clean(self) -> None:
        """Refuse the periods that the API refuses, with the messages of the API."""
        super().clean()
        start, end = self.cleaned_data.get("start_time"), self.cleaned_data.get("end_time")
        if start and end:
            try:
                services.check_time_off(start, end)
            except Invalid as error:
                for field, problems in (error.errors or {}).items():
                    self.add_error(field, problems)


class TimeOffInline(CalendarPartInline):
    """The current and future time off of a calendar. Past time off would only fill the page."""

    model = TimeOff
    form = TimeOffForm
    extra = 0

    def get_queryset(self, request: HttpRequest) -> QuerySet[TimeOff]:
        """Return the current and future time off."""
        return super().get_queryset(request).filter(end_time__gt=timezone.now())


@admin.register(Calendar)
class CalendarAdmin(StampedAdmin):
    """The page of a calendar, with its opening hours and time off."""

    menu = Menu.CATALOG
    list_display = ["name", "provider", "timezone", "created_at"]
    list_filter = ["created_at"]
    list_select_related = ["provider"]
    search_fields = ["name", "timezone", "provider__name", "provider__email", "id"]
    autocomplete_fields = ["provider"]
    readonly_fields = ["id", "created_at"]
    fields = ["id", "name", "timezone", "provider", "created_at"]
    inlines = [OpeningHoursInline, TimeOffInline]

    def save_model(self, request: Any, obj: Calendar, form: Any, change: bool) -> None:
        """Lock the calendar before saving it, as the API does."""
        if change:
            services.lock_calendar(calendar_id=obj.pk)
        super().save_model(request, obj, form, change)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """Replace all opening hours at once, as the API does."""
        if isinstance(formset, OpeningHoursFormSet):
            formset.save(commit=False)
            services.set_opening_hours(calendar=form.instance, spans=formset.spans())
        else:
            super().save_formset(request, form, formset, change)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Save hours and time off. Warn of bookings that are now outside the open times."""
        super().save_related(request, form, formsets, change)
        if "timezone" in form.changed_data or any(formset.has_changed() for formset in formsets):
            self.warn_of_affected(request, form.instance)

    def warn_of_affected(self, request: HttpRequest, calendar: Calendar) -> None:
        """Warn of upcoming bookings that are outside the open times, if there are any."""
        affected = services.affected_bookings(calendar=calendar, at=timezone.now())
        if not affected.count:
            return
        tz = zone(calendar.timezone)
        first = ", ".join(
            f"{start.astimezone(tz):%Y-%m-%d %H:%M} ({pk})"
            for pk, start in affected.first[:MAX_NAMED]
        )
        more = f" and {affected.count - MAX_NAMED} more" if affected.count > MAX_NAMED else ""
        words = "booking is" if affected.count == 1 else "bookings are"
        self.message_user(
            request,
            f"{affected.count} upcoming {words} now outside the open times: {first}{more}.",
            messages.WARNING,
        )


class ServiceForm(forms.ModelForm):
    """The form of a service, with a price in a currency that is in use."""

    # The browser accepts any number of decimals (`step`). `clean` checks that the price has at most
    # the decimals of its currency.
    price = forms.DecimalField(
        min_value=0,
        max_digits=money.DIGITS,
        decimal_places=money.DECIMALS,
        widget=forms.NumberInput(attrs={"step": "any"}),
    )
    currency = forms.ChoiceField()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        stored = self.instance
        # Users who may only view the page get a form without fields.
        if "currency" in self.fields:
            names = {code: money.NAMES[code] for code in money.CURRENCIES}
            names.setdefault(stored.currency, "no longer in use")
            field: Any = self.fields["currency"]
            field.initial = stored.currency
            field.choices = [(code, f"{code}: {name}") for code, name in names.items()]
        if stored.price is not None:
            self.initial["price"] = money.in_currency(stored.price, stored.currency)

    def clean(self) -> None:
        """Refuse a price with more decimals than its currency has, with the API's message."""
        super().clean()
        price, currency = self.cleaned_data.get("price"), self.cleaned_data.get("currency")
        if price is not None and currency:
            try:
                services.check_price(price, currency)
            except Invalid as error:
                for field, problems in (error.errors or {}).items():
                    self.add_error(field, problems)


@admin.register(Service)
class ServiceAdmin(StampedAdmin):
    """The page of a service."""

    menu = Menu.CATALOG
    form = ServiceForm
    list_display = [
        "title",
        "calendar",
        "category",
        "amount",
        "duration_minutes",
        "capacity",
        "is_active",
        "rating_average",
        "rating_count",
    ]
    list_filter = ["is_active", "mode", ("category", one_of(categories)), "requires_confirmation"]
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

    @admin.display(description="price", ordering="price")
    def amount(self, service: Service) -> str:
        """Return the price with its currency."""
        return money.written(service.price, service.currency)

    def get_readonly_fields(self, request: Any, obj: Service | None = None) -> list[str]:
        """Make the calendar read-only if the service has bookings or slots."""
        fixed = [*self.readonly_fields]
        in_use = obj and (obj.bookings.exists() or obj.slots.exists())
        return [*fixed, "calendar"] if in_use else fixed
