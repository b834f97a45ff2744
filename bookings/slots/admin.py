"""Slots in the admin site."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, ngettext_lazy
from django.views.decorators.http import require_POST

from bookings.exports.files import ICALENDAR
from bookings.holds import unexpired
from bookings.models import Booking, Slot
from bookings.slots import services as slots
from bookings.slots.forms import PublishForm, SeatsForm
from bookings.slots.wording import series_in_words
from bookit.adminsite import words
from bookit.adminsite.cards import Card, CardsAdmin
from bookit.adminsite.cells import badge, code, link
from bookit.adminsite.exports import CSV
from bookit.adminsite.filters import UpcomingFilter, upcoming_first
from bookit.adminsite.links import list_of, page_for, page_of
from bookit.adminsite.menu import Menu
from bookit.adminsite.pages import ServedAdmin
from bookit.adminsite.refusals import REFUSALS, message_of, messages_of
from bookit.times import zone

# The fields of the form, by the names that `publish_slots` uses in its errors.
FIELDS = {"service_id": "service", "start_time": "day", "rrule": "repeat"}
# The preview lists at most this many dates.
MAX_DATES = 24
# The page of a slot lists at most this many bookings. A link leads to all of them.
MAX_PEOPLE = 100
# The confirmation page sends each slot as a form field, and Django accepts at most 1,000 fields.
MAX_CANCELLED = 500
STATES = {
    Slot.Status.SCHEDULED: gettext_lazy("takes place"),
    Slot.Status.CANCELLED: gettext_lazy("cancelled"),
}


def _arguments(form: PublishForm, request: HttpRequest) -> dict[str, Any]:
    """Return the arguments of `publish_slots` and `plan_slots`, from a valid form."""
    cleaned = form.cleaned_data
    return {
        "service_id": cleaned["service"].pk,
        "start_time": cleaned["start_time"],
        "capacity": cleaned.get("capacity"),
        "rrule": cleaned["rrule"],
        **_actor_and_time(request),
    }


def _actor_and_time(request: HttpRequest) -> dict[str, Any]:
    return {"actor": request.user, "at": timezone.now()}


def _preview(form: PublishForm, request: HttpRequest) -> dict[str, Any]:
    """Return the context of the preview: the dates, or why the form is refused.

    While the service, the day or the time is missing, there is no plan yet.
    """
    if not form.is_bound or not {"service", "day", "clock"} <= _given(form):
        return {"plan": None}
    if not form.is_valid():
        return {"problems": _problems(form)}
    try:
        plan = slots.plan_slots(**_arguments(form, request))
    except REFUSALS as error:
        return {"problems": [("", message_of(error))]}
    calendar = form.cleaned_data["service"].calendar
    tz = zone(calendar.timezone)
    dates: list[dict[str, Any]] = [
        {"start": start.astimezone(tz), "clashes": start in plan.clashes} for start in plan.starts
    ]
    # Show dates with a clash even if they come late in the series.
    clashing_first = sorted(dates, key=lambda date: not date["clashes"])[:MAX_DATES]
    shown = sorted(clashing_first, key=lambda date: date["start"])
    return {
        "plan": plan,
        "words": series_in_words(form.cleaned_data["pattern"], [date["start"] for date in dates]),
        "zone": calendar.timezone,
        "clashes": len(plan.clashes),
        "dates": shown,
        "more": len(dates) - len(shown),
    }


def _problems(form: PublishForm) -> list[tuple[Any, Any]]:
    """Return the errors of a form, each with the label of its field."""
    return [
        (form.fields[name].label if name in form.fields else "", str(text))
        for name, texts in form.errors.items()
        for text in texts
    ]


def _given(form: PublishForm) -> set[str]:
    """Return the names of the fields with a value."""
    return {name for name in form.fields if form[name].data}


def _period(slot: Slot) -> str:
    """Return the period of a slot in the zone of its calendar."""
    return words.period(slot.start_time, slot.end_time, zone(slot.calendar.timezone))


def _who_comes(slot: Slot) -> Card:
    """Return the card with the bookings that take a seat of a slot, in the order of the seats."""
    taken = Booking.objects.filter(unexpired(timezone.now()), slot=slot, active=True)
    shown = taken.select_related("user").order_by("seat", "id")[:MAX_PEOPLE]
    lines = [
        (
            link(page_of(booking), booking.customer()),
            badge(booking.status, booking.get_status_display()),
            booking.attendee()["attendee_phone"],
        )
        for booking in shown
    ]
    return Card(
        _("Who comes"),
        columns=[_("Name"), _("State"), _("Phone")] if lines else [],
        lines=lines,
        note="" if lines else _("Nobody is booked at present."),
        more=(
            # Without `start_time__isnull`, the list shows only today and later (`UpcomingFilter`).
            list_of(Booking, slot__id__exact=slot.pk, start_time__isnull=False),
            _("All bookings of this slot, including cancelled ones"),
        ),
    )


def _uncancelled(rows: QuerySet[Slot]) -> QuerySet[Slot]:
    """Leave out cancelled slots, which neither the question nor the result should count."""
    return rows.exclude(status=Slot.Status.CANCELLED)


def _number_of_bookings_to_cancel(rows: Iterable[Slot]) -> int:
    """Return how many bookings, apart from holds, are cancelled with these slots."""
    rows = [*rows]
    calendars = {slot.calendar_id for slot in rows}
    return Booking.objects.filter(
        calendar__in=calendars, slot__in=rows, status__in=Booking.EXPECTED
    ).count()


def _is_open(slot: Slot) -> bool:
    """Return whether staff can still change and cancel a slot."""
    return slot.status == Slot.Status.SCHEDULED and slot.end_time > timezone.now()


@admin.register(Slot)
class SlotAdmin(CardsAdmin, ServedAdmin):
    """The pages on which staff publish, see, change, cancel and delete slots."""

    class Media:
        css = {"all": ["bookit/forms.css"]}
        js = ["bookit/forms.js"]

    menu = Menu.DIARY
    in_use = slots.SLOT_IN_USE
    delete_note = gettext_lazy("People on the waitlist get an email.")
    list_title = gettext_lazy("Classes and slots")
    list_display = ["when", "state", "what", "seats"]
    list_display_links = ["when"]
    list_filter = [("start_time", UpcomingFilter), "status", "created_at"]
    change_form_template = "admin/bookings/slot/page.html"
    list_select_related = ["service", "calendar"]
    formats = {"csv": CSV, "ics": ICALENDAR}
    csv_columns = [
        *("start_time", "end_time", "service", "calendar"),
        *("capacity", "seats_taken", "status"),
    ]
    search_fields = ["id", "service__title", "calendar__name"]
    date_hierarchy = "start_time"
    ordering = ["start_time", "id"]
    exclude = ["blocked"]
    actions = ["cancel"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may publish slots."""
        return request.user.has_perm("bookings.add_slot")

    def get_urls(self) -> list[Any]:
        """Add the URLs of the preview of a publication, and of the forms for a slot."""
        preview = path(
            "preview/", self.admin_site.admin_view(self.preview_view), name="bookings_slot_preview"
        )
        seats = path(
            "<uuid:slot_id>/seats/",
            self.admin_site.admin_view(require_POST(self.seats_view)),
            name="bookings_slot_seats",
        )
        cancel = path(
            "<uuid:slot_id>/cancel/",
            self.admin_site.admin_view(require_POST(self.cancel_view)),
            name="bookings_slot_cancel",
        )
        return [preview, seats, cancel, *super().get_urls()]

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the form that publishes slots, or publish the slots. The form shows refusals.

        Raises:
            PermissionDenied: the user may not publish slots.
        """
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = PublishForm(self.admin_site, request.POST or None)
        context = {
            **self.admin_site.each_context(request),
            "title": _("Publish slots"),
            "opts": self.opts,
            "list_name": self.list_name(),
            "has_view_permission": self.has_view_permission(request),
            "form": form,
            "media": self.media + form.media,
            "what": [form[name] for name in ("service", "day", "clock", "capacity")],
            "repetition": [
                form[name] for name in ("repeat", "interval", "weekdays", "count", "until")
            ],
        }
        # Without scripts, the button `_preview` shows the preview.
        if form.is_bound and "_preview" not in request.POST and form.is_valid():
            try:
                published = slots.publish_slots(**_arguments(form, request))
            except REFUSALS as error:
                # Before `add_error`, the form is valid, so the preview shows which dates are taken.
                context |= _preview(form, request)
                for field, texts in messages_of(error).items():
                    form.add_error(FIELDS.get(field or ""), texts)
                return render(request, "admin/bookings/slot/publish.html", context)
            return self._published(request, published)
        return render(
            request,
            "admin/bookings/slot/publish.html",
            {**context, **_preview(form, request)},
        )

    def preview_view(self, request: HttpRequest) -> HttpResponse:
        """Show the dates that a form would publish, and their pattern in words.

        Raises:
            PermissionDenied: the user may not publish slots.
        """
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = PublishForm(self.admin_site, request.GET)
        return render(request, "admin/bookings/slot/preview.html", _preview(form, request))

    def _published(self, request: HttpRequest, published: list[Slot]) -> HttpResponse:
        """Log who published the slots, and return to the list with a message.

        Users who may not see the list get the form again.
        """
        count = len(published)
        text = ngettext("%(count)d slot was published.", "%(count)d slots were published.", count)
        text %= {"count": count}
        self.log_addition(request, published[0], text)
        self.message_user(request, text, messages.SUCCESS)
        page = "changelist" if self.has_view_permission(request) else "add"
        return HttpResponseRedirect(reverse(f"admin:bookings_slot_{page}"))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Slot]:
        """Return the slots, each with the number of its taken seats."""
        return super().get_queryset(request).annotate(taken=slots.SEATS_TAKEN)

    def get_ordering(self, request: HttpRequest) -> Any:
        """Return the order, which `upcoming_first` explains."""
        return upcoming_first(request)

    @admin.display(description=gettext_lazy("when"), ordering="start_time")
    def when(self, slot: Slot) -> Any:
        """Return the period in the zone of the calendar, and the zone."""
        return format_html(
            '{} <span class="below">{}</span>', _period(slot), slot.calendar.timezone
        )

    @admin.display(description=gettext_lazy("status"), ordering="status")
    def state(self, slot: Slot) -> Any:
        """Return whether the slot takes place or was cancelled."""
        return badge(slot.status, STATES[Slot.Status(slot.status)])

    @admin.display(description=gettext_lazy("what"), ordering="service__title")
    def what(self, slot: Slot) -> Any:
        """Return the service and the calendar."""
        title, name = slot.service.title, slot.calendar.name
        return format_html('{} <span class="below">{}</span>', title, name)

    @admin.display(description=gettext_lazy("seats taken"))
    def seats(self, slot: Any) -> str:
        """Return the number of taken seats and the number of all seats."""
        return _("%(taken)s of %(capacity)s") % {"taken": slot.taken, "capacity": slot.capacity}

    @admin.display(description=gettext_lazy("Seats taken"))
    def seats_taken(self, slot: Any) -> int:
        """Return the number of taken seats."""
        return slot.taken

    def heading(self, row: Slot) -> Any:
        """Return the service and the period."""
        return _("%(service)s, %(when)s") % {"service": row.service.title, "when": _period(row)}

    def cards(self, request: HttpRequest, row: Any) -> Sequence[Card]:
        """Return the card of the slot, and a card of its bookings if the user may see bookings."""
        zone_name = row.calendar.timezone
        facts = [
            (_("State"), self.state(row)),
            (_("When"), _("%(when)s (%(zone)s)") % {"when": _period(row), "zone": zone_name}),
            (_("Service"), link(page_for(request, row.service), row.service)),
            (_("Calendar"), link(page_for(request, row.calendar), row.calendar)),
            (_("Seats taken"), self.seats(row)),
            (_("Id"), code(row.pk)),
        ]
        slot = Card(_("Slot"), facts=facts)
        return [slot, _who_comes(row)] if request.user.has_perm("bookings.view_booking") else [slot]

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> Any:
        """Show a slot. If it can be changed, show the forms that change its seats or cancel it."""
        if _is_open(obj) and self.has_change_permission(request, obj):
            refused = getattr(request, "seats_form", None)
            context["seats_form"] = refused or SeatsForm(initial={"capacity": obj.capacity})
            context["bookings"] = _number_of_bookings_to_cancel([obj])
        return super().render_change_form(request, context, add, change, form_url, obj)

    def cancel_view(self, request: HttpRequest, slot_id: UUID) -> HttpResponse:
        """Cancel a slot and its bookings, and show the slot again.

        Raises:
            PermissionDenied: the user may not change slots.
        """
        if not self.has_change_permission(request):
            raise PermissionDenied
        self._cancel(request, _uncancelled(self.get_queryset(request).filter(pk=slot_id)))
        return HttpResponseRedirect(page_of(Slot(pk=slot_id)))

    def seats_view(self, request: HttpRequest, slot_id: UUID) -> HttpResponse:
        """Change the number of seats. A refusal is shown at the field, on the slot's page.

        If the slot has ended or was cancelled, that page has no field, and shows a message instead.

        Raises:
            Http404: the slot does not exist.
            PermissionDenied: the user may not change slots.
        """
        slot = self.row_to_change(request, slot_id)
        form = SeatsForm(request.POST)
        if form.is_valid():
            try:
                slot, has_changed = slots.change_slot(
                    slot_id=slot.pk,
                    capacity=form.cleaned_data["capacity"],
                    **_actor_and_time(request),
                )
            except REFUSALS as error:
                form.add_error("capacity", message_of(error))
            else:
                if has_changed:
                    self.log_change(request, slot, _("Changed the number of seats."))
                    text = _("The number of seats was changed.")
                    self.message_user(request, text, messages.SUCCESS)
                return HttpResponseRedirect(page_of(slot))
        if not _is_open(slot):
            self.message_user(request, " ".join(map(str, form.errors["capacity"])), messages.ERROR)
            return HttpResponseRedirect(page_of(slot))
        request.seats_form = form  # type: ignore[attr-defined]
        request.method = "GET"
        return self.change_view(request, str(slot_id))

    @admin.action(
        description=gettext_lazy("Cancel, together with all bookings"), permissions=["change"]
    )
    def cancel(self, request: HttpRequest, queryset: QuerySet[Slot]) -> HttpResponse | None:
        """Ask whether to cancel the selected slots and their bookings; once confirmed, do so.

        The question counts and names only slots that have not ended. If there are none, there is
        no question, and messages say why nothing was changed.
        """
        queryset = _uncancelled(queryset)
        if "sure" in request.POST:
            self._cancel(request, queryset)
            return None
        rows = [*queryset[: MAX_CANCELLED + 1]]
        if len(rows) > MAX_CANCELLED:
            text = _("Cancel at most %d slots at a time.") % MAX_CANCELLED
            self.message_user(request, text, messages.ERROR)
            return None
        rows = [row for row in rows if _is_open(row)]
        if not rows:
            self._cancel(request, queryset)
            return None
        context = {
            **self.question(
                request,
                _("Cancel slots"),
                rows,
                shown=lambda row: (self.heading(row), self.seats(row)),
            ),
            "bookings": _number_of_bookings_to_cancel(rows),
        }
        return render(request, "admin/bookings/slot/cancel_selected.html", context)

    def _cancel(self, request: HttpRequest, queryset: QuerySet[Slot]) -> None:
        self.apply(
            request,
            queryset,
            lambda slot: self._cancel_one(request, slot),
            done=ngettext_lazy("%d slot cancelled.", "%d slots cancelled."),
            name=self.heading,
        )

    def _cancel_one(self, request: HttpRequest, slot: Slot) -> None:
        _slot, has_changed = slots.change_slot(
            slot_id=slot.pk, status=Slot.Status.CANCELLED, **_actor_and_time(request)
        )
        # Slots have no history of their own, so the admin site's log says who cancelled them.
        if has_changed:
            self.log_change(request, slot, _("Cancelled."))

    def delete_row(self, request: HttpRequest, row: Slot) -> None:
        """Delete a slot without bookings."""
        slots.delete_slot(slot_id=row.pk, **_actor_and_time(request))
