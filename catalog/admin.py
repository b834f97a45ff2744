"""Calendars and services in the admin site."""

import re
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.postgres.search import SearchQuery
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path, reverse
from django.utils import timezone
from django.utils.formats import number_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe
from django.utils.translation import gettext, ngettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from accounts.models import User
from bookit import money
from bookit.adminsite.cells import exactly, link, person
from bookit.adminsite.fields import SuggestingInput, UnitInput
from bookit.adminsite.filters import one_of
from bookit.adminsite.menu import Menu
from bookit.adminsite.pages import StampedAdmin, is_id
from bookit.adminsite.search import all_in
from bookit.adminsite.stale import noticing
from bookit.database.references import is_referenced
from bookit.errors import Invalid
from bookit.times import zone, zone_names
from catalog import services
from catalog.categories.choices import categories
from catalog.extensions import MAX_DESCRIBED, described
from catalog.forms import (
    OpeningHoursForm,
    OpeningHoursFormSet,
    TimeOffForm,
    TimeOffFormSet,
)
from catalog.models import Calendar, OpeningHours, Service, TimeOff, average_rating
from catalog.offers import offered_days
from catalog.providers import admin as providers  # noqa: F401 - the import registers its pages
from catalog.search import divided

# Matches the number of a page of time off.
PAGE = re.compile(r"[1-9][0-9]{0,3}")


class CalendarPartInline(admin.TabularInline):
    """Rows of a calendar. Users who may change the calendar may also change its rows."""

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may see, create or change calendars.

        To read the rows, Django calls this method without the calendar. If it returns False, the
        page shows no rows.
        """
        names = ("view", "add", "change")
        return any(request.user.has_perm(f"catalog.{name}_calendar") for name in names)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may change the calendar or, if it is new, create calendars."""
        name = "catalog.change_calendar" if obj else "catalog.add_calendar"
        return request.user.has_perm(name)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return the same as `has_add_permission`."""
        return self.has_add_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return the same as `has_add_permission`."""
        return self.has_add_permission(request, obj)


class OpeningHoursInline(CalendarPartInline):
    """The opening hours of a calendar, as a weekly grid."""

    model = OpeningHours
    form = OpeningHoursForm
    formset = OpeningHoursFormSet
    template = "admin/catalog/calendar/opening_hours.html"
    extra = 7  # An empty span for each day.


class TimeOffInline(CalendarPartInline):
    """The current and future time off of a calendar. Past time off would only clutter the page."""

    model = TimeOff
    form = TimeOffForm
    formset = TimeOffFormSet
    template = "admin/catalog/calendar/time_off.html"
    extra = 1

    def get_formset(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        """Return the class of the formset, with its `page` and its `viewer`.

        Its forms notice what somebody else has changed in the meantime.
        """
        formset = super().get_formset(request, obj, **kwargs)
        formset.form = noticing(formset.form)
        formset.viewer = request.user  # type: ignore[attr-defined]
        page = request.GET.get("time_off", "")
        formset.page = int(page) if PAGE.fullmatch(page) else 1  # type: ignore[attr-defined]
        return formset

    def get_queryset(self, request: HttpRequest) -> QuerySet[TimeOff]:
        """Return the current and future time off."""
        return super().get_queryset(request).filter(end_time__gt=timezone.now())


class CalendarForm(forms.ModelForm):
    """The form of a calendar, with labels and help texts for business owners."""

    class Meta:
        labels = {
            "name": pgettext_lazy("thing", "Name"),
            "timezone": _("Time zone"),
            "provider": _("Provider"),
        }
        help_texts = {
            "name": _("For example a person, a room or a court. Customers see it."),
            "timezone": _("Opening hours are in this zone, even after its clocks change."),
            "provider": _("Who may see and manage the bookings of this calendar."),
        }

    def clean_provider(self) -> User | None:
        """Return the provider. An unchanged provider is not checked.

        Raises:
            ValidationError: the chosen account is not an active provider or admin.
        """
        chosen: User | None = self.cleaned_data["provider"]
        if chosen is not None and "provider" in self.changed_data:
            try:
                services.check_provider(chosen.pk)
            except Invalid as error:
                raise ValidationError(error.errors["provider_id"]) from None
        return chosen


@admin.register(Calendar)
class CalendarAdmin(StampedAdmin):
    """The page of a calendar, with its opening hours and time off."""

    menu = Menu.CATALOG
    list_display = ["name", "provided_by", "timezone", "created"]
    csv_columns = ["name", "provider", "timezone", "created_at"]
    list_filter = ["created_at"]
    list_select_related = ["provider"]
    search_fields = ["name", "timezone", "provider__name", "provider__email", "id"]
    autocomplete_fields = ["provider"]
    readonly_fields = ["id", "created_on", "provided_by"]
    unlinked: ClassVar = {"provider": "provided_by"}
    form = CalendarForm
    fieldsets = [
        (None, {"fields": ["name", "timezone", "provider"]}),
        (_("Record"), {"fields": ["id", "created_on"], "classes": ["record"]}),
    ]
    inlines = [OpeningHoursInline, TimeOffInline]
    in_use = services.CALENDAR_IN_USE
    has_public_names = True

    def search_conditions(self, request: HttpRequest, words: str) -> list[Q]:
        """Return conditions on the name, zone and provider, or none if the words are an id.

        In autocomplete fields, users who may not see calendars do not find them by provider,
        because the email addresses of providers are not public.
        """
        if is_id(words):
            return []
        zone_part = words.casefold().replace(" ", "_")
        zones = [each for each in zone_names() if zone_part in each.casefold()]
        conditions = [all_in(words, ["name"]), Q(timezone__in=zones)]
        if self.has_view_permission(request):
            people = User.objects.filter(all_in(words, ["name", "email"]))
            conditions.append(Q(provider__in=people.values("pk")))
        return conditions

    @admin.display(description=_("provider"), ordering="provider__name")
    def provided_by(self, calendar: Calendar) -> Any:
        """Return the name and the email address of the provider, if there is one."""
        return person(calendar.provider) if calendar.provider else ""

    @admin.display(description=_("created"), ordering="created_at")
    def created(self, calendar: Calendar) -> str:
        """Return when the calendar was created, in its zone: a column of the list."""
        return exactly(calendar.created_at, calendar.timezone)

    @admin.display(description=_("Created"))
    def created_on(self, calendar: Calendar) -> str:
        """Return the same: a field of the calendar's page."""
        return exactly(calendar.created_at, calendar.timezone)

    class Media:
        css = {"all": ["bookit/forms.css"]}
        js = ["bookit/forms.js"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Make the provider read-only for users who may not see accounts.

        They could not find an account. If they sent the id of any account, the form would show its
        email address.
        """
        fixed = [*self.readonly_fields]
        return fixed if self._may_see_related(request, "provider") else [*fixed, "provider"]

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
            PermissionDenied: the user may not change the calendar.
        """
        calendar = self.row_to_change(request, calendar_id)
        shown = request.GET.get("zone")
        form = TimeOffForm(request.GET, instance=TimeOff(calendar=calendar))
        zone_name = shown if shown in zone_names() else calendar.timezone
        form.set_context(calendar, zone_name, request.user)
        form.is_valid()  # This finds the affected bookings. The page shows no errors.
        return render(request, "admin/catalog/calendar/affected.html", {"form": form})

    def save_model(self, request: Any, obj: Calendar, form: Any, change: bool) -> None:
        """Lock the calendar before saving it, as the API does."""
        if change:
            locked = services.lock_calendar(calendar_id=obj.pk)
            if "timezone" not in form.changed_data:
                # The page may have been opened before somebody else changed the zone.
                obj.timezone = locked.timezone
        super().save_model(request, obj, form, change)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """Save time off row by row, but replace all opening hours at once, as the API does."""
        if not isinstance(formset, OpeningHoursFormSet):
            super().save_formset(request, form, formset, change)
            return
        if formset.has_changed():
            formset.check_again()
            services.set_opening_hours(calendar=form.instance, spans=formset.spans())
        formset.note_changes()

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Save hours and time off, and warn of bookings that are now outside the open times."""
        changed = "timezone" in form.changed_data or any(each.has_changed() for each in formsets)
        super().save_related(request, form, formsets, change)
        if changed:
            self.warn_of_affected(request, form.instance)

    def delete_row(self, request: HttpRequest, row: Calendar) -> None:
        """Delete a calendar that has no services."""
        services.delete_calendar(calendar_id=row.pk, actor=request.user)  # type: ignore[arg-type]

    def warn_of_affected(self, request: HttpRequest, calendar: Calendar) -> None:
        """Warn of bookings that have not ended and are outside the open times."""
        affected = services.affected_bookings(calendar=calendar, at=timezone.now())
        if not affected.count:
            return
        tz = zone(calendar.timezone)
        named = format_html_join(
            "; ",
            "{}",
            (
                (link(each.url, each.text),)
                for each in described(affected, viewer=request.user, tz=tz)
            ),
        )
        if affected.count > MAX_DESCRIBED:
            text = ngettext(
                "%(count)s upcoming booking is now outside the open times. The first ones are:"
                " %(named)s.",
                "%(count)s upcoming bookings are now outside the open times. The first ones are:"
                " %(named)s.",
                affected.count,
            )
        else:
            text = ngettext(
                "%(count)s upcoming booking is now outside the open times: %(named)s.",
                "%(count)s upcoming bookings are now outside the open times: %(named)s.",
                affected.count,
            )
        # This HTML is safe: the text is BookIt's own, `named` is safe, and `count` is a number.
        message = mark_safe(text % {"count": affected.count, "named": named})  # noqa: S308
        self.message_user(request, message, messages.WARNING)


class ServiceForm(forms.ModelForm):
    """The form of a service. It offers the currencies in use, and the currency that is stored."""

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

    class Meta:
        labels = {
            "title": _("Title"),
            "description": _("Description"),
            "category": _("Category"),
            "calendar": _("Calendar"),
            "is_active": _("Customers can book this service"),
            "duration_minutes": _("Duration"),
            "capacity": _("Seats"),
            "mode": _("Customers can book"),
            "step_minutes": _("A start every"),
            "requires_confirmation": _("Somebody must confirm each booking"),
            "buffer_before_minutes": _("Kept free before"),
            "buffer_after_minutes": _("Kept free after"),
            "min_notice_minutes": _("Book at least"),
            "max_advance_days": _("Book at most"),
            "cancellation_notice_minutes": _("Cancel or move at least"),
        }
        help_texts = {
            "category": _("Customers can filter services by it."),
            "calendar": _(
                "Whose time the service takes. No other service of the calendar can be booked for"
                " the same time."
            ),
            "is_active": _("Bookings that exist stay as they are."),
            "capacity": _("How many people can book the same time."),
            "step_minutes": _("If empty, the same as the duration."),
            "requires_confirmation": _(
                "A booking occupies its time immediately, and expires if nobody confirms it before"
                " it starts."
            ),
            "buffer_before_minutes": _("For example, to prepare the room."),
            "buffer_after_minutes": _("For example, to clean up or to travel."),
            "min_notice_minutes": _("An hour has 60 minutes, a day has 1,440."),
            "max_advance_days": _("If empty, customers can book as far ahead as they like."),
            "cancellation_notice_minutes": _(
                "With less notice, customers must ask you. You yourself can always cancel and move."
            ),
        }
        widgets = {
            "description": forms.Textarea(attrs={"rows": 4}),
            "category": SuggestingInput(categories),
            "duration_minutes": UnitInput(_("minutes")),
            "step_minutes": UnitInput(_("minutes")),
            "buffer_before_minutes": UnitInput(_("minutes")),
            "buffer_after_minutes": UnitInput(_("minutes")),
            "min_notice_minutes": UnitInput(_("minutes before the start")),
            "max_advance_days": UnitInput(_("days ahead")),
            "cancellation_notice_minutes": UnitInput(_("minutes before the start")),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        stored = self.instance
        names = {code: money.NAMES[code] for code in money.CURRENCIES}
        names.setdefault(stored.currency, gettext("no longer in use"))
        field: Any = self.fields["currency"]
        field.initial = stored.currency
        field.choices = [(code, f"{code}: {name}") for code, name in names.items()]
        if stored.price is not None:
            self.initial["price"] = money.in_currency(stored.price, stored.currency)

    def clean(self) -> None:
        """Refuse a price with more decimals than its currency has, with the API's message.

        For a field that the user left alone, the stored value counts: somebody else may have
        changed it since the page was opened.
        """
        super().clean()
        is_new = self.instance._state.adding
        price, currency = (
            self.cleaned_data.get(name)
            if is_new or name in self.changed_data
            else getattr(self.instance, name)
            for name in ("price", "currency")
        )
        if price is not None and currency:
            try:
                services.check_price(price, currency)
            except Invalid as error:
                self.add_error(None, error.errors)


def _preview(form: Any, service: Service) -> dict[str, Any]:
    """Return the context of the preview. `days` is what customers would be offered.

    `days` is None if the form has errors: even an invalid form has set some of its values on the
    service, for example a duration of 0, with which no search is possible. `days` is also None if
    the form chooses another calendar, because a search uses the stored calendar of a service.
    """
    is_valid = not form.is_bound or form.is_valid()
    moves = form.is_bound and is_valid and "calendar" in form.changed_data
    days = offered_days(service, at=timezone.now()) if is_valid and not moves else None
    return {"service": service, "days": days, "moves": moves}


@admin.register(Service)
class ServiceAdmin(StampedAdmin):
    """The page of a service."""

    menu = Menu.CATALOG
    form = ServiceForm
    list_display = ["what", "category", "amount", "length", "seats", "is_active", "rating"]
    csv_columns = [
        *("title", "calendar", "category", "exact_price", "currency", "duration_minutes"),
        *("capacity", "is_active", "rating_average", "rating_count"),
    ]
    list_filter = ["is_active", "mode", ("category", one_of(categories)), "requires_confirmation"]
    list_select_related = ["calendar"]
    search_fields = ["title", "description", "calendar__name", "id"]
    autocomplete_fields = ["calendar"]
    readonly_fields = ["rating", "id", "created", "on_calendar"]
    unlinked: ClassVar = {"calendar": "on_calendar"}
    in_use = services.SERVICE_IN_USE
    has_public_names = True
    fieldsets = [
        (None, {"fields": ["title", "description", "category", "calendar", "is_active"]}),
        (_("Price"), {"fields": [("price", "currency")]}),
        (_("Time"), {"fields": ["mode", "duration_minutes", "step_minutes", "capacity"]}),
        (_("Breaks"), {"fields": ["buffer_before_minutes", "buffer_after_minutes"]}),
        (
            _("Rules for customers"),
            {
                "fields": [
                    "requires_confirmation",
                    "min_notice_minutes",
                    "max_advance_days",
                    "cancellation_notice_minutes",
                ]
            },
        ),
        (_("Record"), {"fields": ["rating", "id", "created"], "classes": ["record"]}),
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
        """Show what customers would be offered if the submitted form were saved.

        Raises:
            Http404: the service does not exist.
            PermissionDenied: the user may not change the service.
        """
        service = self.row_to_change(request, service_id)
        form = self.get_form(request, service, change=True)(request.GET, instance=service)
        return render(request, "admin/catalog/service/offers.html", _preview(form, service))

    def render_change_form(
        self, request: Any, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Show the page; below the fields of a stored service, show what customers are offered."""
        service: Service | None = context.get("original")
        if service and not context["is_popup"]:
            form = context["adminform"].form
            context |= {"offers_shown": True, **_preview(form, service)}
        return super().render_change_form(request, context, *args, **kwargs)

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        """Leave out descriptions for autocomplete fields, which show only titles."""
        is_field = request.path == reverse("admin:autocomplete")
        return [each for each in self.search_fields if not is_field or each != "description"]

    def search_conditions(self, request: HttpRequest, words: str) -> list[Q]:
        """Return conditions on the texts of services, or none if the words are an id.

        Descriptions are found by whole words, as in the API. Titles, and the names of calendars,
        are also found by parts of words.
        """
        if is_id(words):
            return []
        named = Calendar.objects.filter(all_in(words, ["name"]))
        conditions = [all_in(words, ["title"]), Q(calendar__in=named.values("pk"))]
        if "description" in self.get_search_fields(request):
            conditions.append(Q(search=SearchQuery(divided(words), config="english")))
        return conditions

    @admin.display(description=_("service"), ordering="title")
    def what(self, service: Service) -> Any:
        """Return the title, with the name of the calendar below it."""
        return format_html('{} <span class="below">{}</span>', service.title, service.calendar.name)

    @admin.display(description=_("length"), ordering="duration_minutes")
    def length(self, service: Service) -> str:
        """Return the duration in minutes."""
        return gettext("%(minutes)s min") % {"minutes": service.duration_minutes}

    @admin.display(description=_("seats"), ordering="capacity")
    def seats(self, service: Service) -> int:
        """Return how many bookings the service takes at a time."""
        return service.capacity

    @admin.display(description=_("rating"))
    def rating(self, service: Service) -> Any:
        """Return the average, with the number of reviews below it."""
        if not service.rating_count:
            return gettext("no reviews")
        number = service.rating_count
        words = ngettext("%(number)s review", "%(number)s reviews", number) % {"number": number}
        # `rating_average` is rounded already, and rounding twice would make 4.4 of 4.4524.
        average = number_format(average_rating(service.rating_sum, number, decimals=1), 1)
        return format_html('{} <span class="below">{}</span>', average, words)

    @admin.display(description=_("Calendar"))
    def on_calendar(self, service: Service) -> str:
        """Return the name of the calendar."""
        return service.calendar.name

    @admin.display(description=_("Created"))
    def created(self, service: Service) -> str:
        """Return when the service was created, in the zone of its calendar."""
        return exactly(service.created_at, service.calendar.timezone)

    @admin.display(description=_("price"), ordering="price")
    def amount(self, service: Service) -> str:
        """Return the price with its currency."""
        return money.written(service.price, service.currency)

    @admin.display(description=_("price"))
    def exact_price(self, service: Service) -> Decimal:
        """Return the price with the decimals of its currency, for the CSV file."""
        return money.in_currency(service.price, service.currency)

    def delete_row(self, request: HttpRequest, row: Service) -> None:
        """Delete a service that has no bookings, slots or reviews."""
        services.delete_service(service_id=row.pk, actor=request.user)  # type: ignore[arg-type]

    def get_readonly_fields(self, request: Any, obj: Service | None = None) -> list[str]:
        """Make the calendar read-only if the service has bookings, slots or reviews."""
        fixed = [*self.readonly_fields]
        return [*fixed, "calendar"] if obj and is_referenced(obj) else fixed
