"""Slots in the admin site."""

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import path, reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from bookings.exports.files import ICALENDAR
from bookings.models import Booking, Slot
from bookings.slots import services as slots
from bookings.slots.forms import PublishForm
from bookings.slots.wording import series_in_words
from bookit.adminsite.exports import CSV
from bookit.adminsite.menu import Menu
from bookit.adminsite.pages import ServedAdmin
from bookit.adminsite.refusals import REFUSALS, message_of, messages_of
from bookit.times import zone

# The fields of the form, by the names that the service uses in its errors.
FIELDS = {"service_id": "service", "start_time": "day", "capacity": "capacity", "rrule": "repeat"}
# The preview lists at most this many dates.
MAX_DATES = 24


def _wish(form: PublishForm) -> dict[str, Any]:
    """Return the arguments that a valid form has for the service."""
    cleaned = form.cleaned_data
    return {
        "service_id": cleaned["service"].pk,
        "start_time": cleaned["start_time"],
        "capacity": cleaned.get("capacity"),
        "rrule": cleaned["rrule"],
    }


def _now(request: HttpRequest) -> dict[str, Any]:
    return {"actor": request.user, "at": timezone.now()}


def _preview(form: PublishForm, request: HttpRequest) -> dict[str, Any]:
    """Return what the preview shows: the dates in words and one by one, or why there are none."""
    if not form.is_bound or not {"service", "day", "clock"} <= _given(form):
        return {"plan": None}
    if not form.is_valid():
        return {"refusal": " ".join(text for texts in form.errors.values() for text in texts)}
    try:
        plan = slots.plan_slots(**_wish(form), **_now(request))
    except REFUSALS as error:
        return {"refusal": message_of(error)}
    calendar = form.cleaned_data["service"].calendar
    tz = zone(calendar.timezone)
    dates = [
        {"start": start.astimezone(tz).replace(tzinfo=None), "clashes": start in plan.clashes}
        for start in plan.starts
    ]
    # A clash is shown even if it is far down the list.
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


def _given(form: PublishForm) -> set[str]:
    """Return the names of the fields with a value."""
    return {name for name in form.fields if form[name].data}


@admin.register(Slot)
class SlotAdmin(ServedAdmin):
    """The pages for slots, which can be published, viewed, cancelled and deleted."""

    class Media:
        css = {"all": ["bookit/forms.css"]}
        js = ["bookit/forms.js"]

    menu = Menu.DIARY
    list_display = ["start_time", "service", "capacity", "seats_taken", "status"]
    list_filter = ["status", "start_time", "created_at"]
    list_select_related = ["service", "calendar"]
    formats = {"csv": CSV, "ics": ICALENDAR}
    csv_columns = [
        *("start_time", "end_time", "service", "calendar"),
        *("capacity", "seats_taken", "status"),
    ]
    search_fields = ["id", "service__title", "calendar__name"]
    date_hierarchy = "start_time"
    ordering = ["-start_time"]
    exclude = ["blocked"]
    actions = ["cancel"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may publish slots."""
        return request.user.has_perm("bookings.add_slot")

    def get_urls(self) -> list[Any]:
        """Add the preview of a publication."""
        preview = path(
            "preview/", self.admin_site.admin_view(self.preview_view), name="bookings_slot_preview"
        )
        return [preview, *super().get_urls()]

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the form that publishes slots, or publish them; a refusal is shown on the form.

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
            "form": form,
            "media": self.media + form.media,
            "what": [form[name] for name in ("service", "day", "clock", "capacity")],
            "repetition": [
                form[name] for name in ("repeat", "interval", "weekdays", "count", "until")
            ],
        }
        if form.is_bound and "_preview" not in request.POST and form.is_valid():
            try:
                published = slots.publish_slots(**_wish(form), **_now(request))
            except REFUSALS as error:
                for field, texts in messages_of(error).items():
                    form.add_error(FIELDS.get(field), texts)
            else:
                return self._published(request, published)
        return render(
            request,
            "admin/bookings/slot/publish.html",
            {**context, **_preview(form, request)},
        )

    def preview_view(self, request: HttpRequest) -> HttpResponse:
        """Show in words and dates what a form would publish.

        Raises:
            PermissionDenied: the user may not publish slots.
        """
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = PublishForm(self.admin_site, request.GET)
        return render(request, "admin/bookings/slot/preview.html", _preview(form, request))

    def _published(self, request: HttpRequest, published: list[Slot]) -> HttpResponse:
        """Log who published the slots, and return to the list with a message."""
        count = len(published)
        text = ngettext("%(count)d slot was published.", "%(count)d slots were published.", count)
        text %= {"count": count}
        self.log_addition(request, published[0], text)
        self.message_user(request, text, messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:bookings_slot_changelist"))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Slot]:
        """Return the slots, each with the number of its taken seats."""
        return super().get_queryset(request).annotate(taken=slots.SEATS_TAKEN)

    @admin.display(description=gettext_lazy("Seats taken"))
    def seats_taken(self, slot: Any) -> int:
        """Return the number of taken seats."""
        return slot.taken

    @admin.action(
        description=gettext_lazy("Cancel, together with all bookings"), permissions=["change"]
    )
    def cancel(self, request: HttpRequest, queryset: QuerySet[Slot]) -> None:
        """Cancel the selected slots and their bookings."""
        self.apply(
            request,
            queryset,
            lambda slot: slots.change_slot(
                slot_id=slot.pk,
                status=Slot.Status.CANCELLED,
                actor=request.user,  # type: ignore[arg-type]
                at=timezone.now(),
            ),
        )

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Add the bookings that prevent the deletion."""
        names, counts, missing, _protected = super().get_deleted_objects(objs, request)
        return names, counts, missing, [str(each) for each in Booking.objects.filter(slot__in=objs)]

    def delete_row(self, request: HttpRequest, row: Slot) -> None:
        """Delete a slot that was never booked."""
        slots.delete_slot(slot_id=row.pk, actor=request.user)  # type: ignore[arg-type]
