"""Calendars and services in the admin site."""

from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path
from django.utils import timezone
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from bookit import money
from bookit.adminsite.filters import one_of
from bookit.adminsite.menu import Menu
from bookit.adminsite.pages import StampedAdmin
from bookit.errors import Invalid
from bookit.times import zone, zone_names
from catalog import services
from catalog.categories.choices import categories
from catalog.forms import (
    MAX_NAMED,
    OpeningHoursForm,
    OpeningHoursFormSet,
    TimeOffForm,
    TimeOffFormSet,
)
from catalog.models import Calendar, OpeningHours, Service, TimeOff
from catalog.offers import Day, offered_days
from catalog.providers import admin as providers_admin  # noqa: F401 - registers its pages


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
    """The opening hours of a calendar, as a weekly grid."""

    model = OpeningHours
    form = OpeningHoursForm
    formset = OpeningHoursFormSet
    template = "admin/catalog/calendar/opening_hours.html"
    extra = 7  # An empty span for each day.


class TimeOffInline(CalendarPartInline):
    """The current and future time off of a calendar. Past time off would only fill the page."""

    model = TimeOff
    form = TimeOffForm
    formset = TimeOffFormSet
    template = "admin/catalog/calendar/time_off.html"
    extra = 1

    def get_formset(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        """Return the class of the formset, which knows who sees the affected bookings."""
        formset = super().get_formset(request, obj, **kwargs)
        formset.viewer = request.user  # type: ignore[attr-defined]
        return formset

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

    class Media:
        css = {"all": ["bookit/forms.css"]}
        js = ["bookit/forms.js"]

    def get_urls(self) -> list[Any]:
        """Add the list of bookings that time off would affect."""
        affected = path(
            "<uuid:calendar_id>/affected/",
            self.admin_site.admin_view(self.affected_view),
            name="catalog_calendar_affected",
        )
        return [affected, *super().get_urls()]

    def affected_view(self, request: HttpRequest, calendar_id: UUID) -> HttpResponse:
        """Show the bookings in a period that somebody is entering as time off.

        Raises:
            Http404: the calendar does not exist.
            PermissionDenied: the user may not close the calendar.
        """
        calendar = self.get_object(request, str(calendar_id))
        if calendar is None:
            raise Http404
        if not self.has_change_permission(request, calendar):
            raise PermissionDenied
        shown = request.GET.get("zone")
        form = TimeOffForm(request.GET, instance=TimeOff(calendar=calendar))
        form.place(calendar, shown if shown in zone_names() else calendar.timezone, request.user)
        form.is_valid()
        return render(request, "admin/catalog/calendar/affected.html", {"form": form})

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
        text = ngettext(
            "%(count)d upcoming booking is now outside the open times: %(first)s.",
            "%(count)d upcoming bookings are now outside the open times: %(first)s.",
            affected.count,
        )
        if affected.count > MAX_NAMED:
            text = gettext(
                "%(count)d upcoming bookings are now outside the open times: %(first)s and "
                "%(more)d more."
            )
        words = {"count": affected.count, "first": first, "more": affected.count - MAX_NAMED}
        self.message_user(request, text % words, messages.WARNING)


class ServiceForm(forms.ModelForm):
    """The form of a service, with a price in a currency that is in use."""

    # The browser accepts any number of decimals (`step`). `clean` checks that the price has at most
    # the decimals of its currency.
    price = forms.DecimalField(
        label=_("Price"),
        min_value=0,
        max_digits=money.DIGITS,
        decimal_places=money.DECIMALS,
        widget=forms.NumberInput(attrs={"step": "any"}),
    )
    currency = forms.ChoiceField(label=_("Currency"))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        stored = self.instance
        # Users who may only view the page get a form without fields.
        if "currency" in self.fields:
            names = {code: money.NAMES[code] for code in money.CURRENCIES}
            names.setdefault(stored.currency, gettext("no longer in use"))
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


def _days(form: Any, service: Service) -> list[Day] | None:
    """Return what customers would be offered, or None if the form has errors.

    An invalid form has left some of its values in the service. No search can use a duration of 0.
    """
    if form.is_bound and not form.is_valid():
        return None
    return offered_days(service, at=timezone.now())


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
        (_("Price"), {"fields": ["price", "currency"]}),
        (
            _("Time"),
            {"fields": ["duration_minutes", "capacity", "mode", "step_minutes"]},
        ),
        (
            _("Rules"),
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
        (_("Ratings"), {"fields": ["rating_average", "rating_count", "created_at"]}),
    ]

    class Media:
        css = {"all": ["bookit/forms.css"]}
        js = ["bookit/forms.js"]

    def get_urls(self) -> list[Any]:
        """Add the preview of what customers would be offered."""
        offers = path(
            "<uuid:service_id>/offers/",
            self.admin_site.admin_view(self.offers_view),
            name="catalog_service_offers",
        )
        return [offers, *super().get_urls()]

    def offers_view(self, request: HttpRequest, service_id: UUID) -> HttpResponse:
        """Show what customers would be offered if the form that is sent were saved.

        Raises:
            Http404: the service does not exist.
            PermissionDenied: the user may not change the service.
        """
        service = self.get_object(request, str(service_id))
        if service is None:
            raise Http404
        if not self.has_change_permission(request, service):
            raise PermissionDenied
        form = self.get_form(request, service, change=True)(request.GET, instance=service)
        context = {"service": service, "days": _days(form, service)}
        return render(request, "admin/catalog/service/offers.html", context)

    def render_change_form(
        self, request: Any, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Show the page; below the fields of a stored service, show what customers are offered."""
        service: Service | None = context.get("original")
        if service and not context["is_popup"]:
            form = context["adminform"].form
            context |= {"offers_shown": True, "service": service, "days": _days(form, service)}
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.display(description=_("price"), ordering="price")
    def amount(self, service: Service) -> str:
        """Return the price with its currency."""
        return money.written(service.price, service.currency)

    def get_readonly_fields(self, request: Any, obj: Service | None = None) -> list[str]:
        """Make the calendar read-only if the service has bookings or slots."""
        fixed = [*self.readonly_fields]
        in_use = obj and (obj.bookings.exists() or obj.slots.exists())
        return [*fixed, "calendar"] if in_use else fixed
