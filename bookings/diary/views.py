"""The diary's page, the requests that its script sends, and their URLs in the admin site."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode
from uuid import UUID
from zoneinfo import ZoneInfo

from django.contrib import admin
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied
from django.db import IntegrityError
from django.forms import Form
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import path, reverse
from django.utils import timezone
from django.utils.cache import get_conditional_response
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_POST, require_safe

from accounts.models import User
from bookings import services
from bookings.diary.forms import (
    BookForm,
    CloseForm,
    MoveForm,
    ReopenForm,
    SheetForm,
    ShownBookingForm,
    ZoneForm,
)
from bookings.diary.reading import MAX_CALENDARS, STATES, Sheet, read, wall
from bookings.models import Booking, Slot
from bookit.adminsite.extensions import PAGES, Page
from bookit.adminsite.links import list_of
from bookit.adminsite.menu import Menu
from bookit.adminsite.refusals import REFUSALS, message_of
from bookit.adminsite.words import dated
from bookit.database.versions import if_unchanged, is_outdated, version_of
from bookit.errors import Conflict, Forbidden, Unavailable
from bookit.json import dumps
from bookit.times import parse_day, zone, zone_names
from catalog import services as catalog
from catalog.extensions import Affected, described
from catalog.models import Calendar, Service

# The page offers the first calendars by name, at most this many, and those that it shows.
MAX_OFFERED = 200
# If the URL names no calendars, the diary shows the user's own calendars. Users who have none see
# the first calendars by name, at most this many.
SHOWN_FIRST = 4
# The page offers at most this many services of the shown calendars.
MAX_SERVICES = 500
VIEWS = ("day", "week", "month", "list")


@require_safe
def page(request: HttpRequest) -> HttpResponse:
    """Show the diary of the calendars and the day that the URL names.

    The page ignores invalid parameters, so that outdated links still work.
    """
    user: Any = request.user
    now = timezone.now()
    offered = [*Calendar.objects.order_by("name", "id")[: MAX_OFFERED + 1]]
    shown = _chosen(request.GET.getlist("calendar")) or _first(offered, user)
    tz = _zone(request.GET.get("zone", ""), shown, user)
    view = request.GET.get("view", "")
    listed = {calendar.pk for calendar in offered[:MAX_OFFERED]}
    # When the clocks go back, an hour occurs twice. In UTC it does not, so staff who choose UTC can
    # also book in its second occurrence.
    zones = {tz.key, user.timezone, *(calendar.timezone for calendar in shown), "UTC"}
    context = {
        **admin.site.each_context(request),
        "title": _("Diary"),
        "offered": [
            *(each for each in shown if each.pk not in listed),
            *offered[:MAX_OFFERED],
        ],
        "shown": shown,
        "shown_ids": {calendar.pk for calendar in shown},
        "states": [each for each in STATES.items() if each[0] in Booking.ACTIVE],
        "may_add": user.may("catalog.add_calendar"),
        "has_more": len(offered) > MAX_OFFERED,
        "most": MAX_CALENDARS,
        "zones": sorted(zones),
        "zone": tz.key,
        "own_zone": user.timezone,
        "may_book": user.may("bookings.add_booking"),
        "may_close": any(_may_close(user, each) for each in shown),
        "diary": {
            "view": view if view in VIEWS else "",
            "date": _day(request.GET.get("date", ""), now.astimezone(tz)),
            "zone": tz.key,
            "most": MAX_CALENDARS,
            "offset": now.astimezone(tz).isoformat()[-6:],  # such as +01:00
            "calendars": [
                {
                    "id": str(each.pk),
                    "title": each.name,
                    "zone": each.timezone,
                    "movable": _may_move(user, each),
                    "closable": _may_close(user, each),
                }
                for each in shown
            ],
            "services": [
                {
                    "id": str(each["id"]),
                    "title": each["title"],
                    "calendar": str(each["calendar_id"]),
                    "in_slots": each["mode"] == Service.Mode.SLOTS,
                    "minutes": each["duration_minutes"],
                }
                for each in Service.objects.filter(calendar__in=shown, is_active=True)
                .order_by("title", "id")
                .values("id", "title", "calendar_id", "mode", "duration_minutes")[:MAX_SERVICES]
            ],
            "urls": {
                "sheet": reverse("admin:bookings_diary_sheet"),
                "move": reverse("admin:bookings_diary_move"),
                "book": reverse("admin:bookings_diary_book"),
                "confirm": reverse("admin:bookings_diary_confirm"),
                "close": reverse("admin:bookings_diary_close"),
                "reopen": reverse("admin:bookings_diary_reopen"),
                "booking": reverse("admin:bookings_booking_change", args=["ID"]),
                "slot": _slot_url(request),
            },
            "words": _words(),
        },
    }
    return render(request, "bookings/diary.html", context)


@require_safe
def sheet(request: HttpRequest) -> HttpResponse:
    """Return what the diary shows in a period. An open diary asks again every 15 seconds."""
    user: Any = request.user
    form = SheetForm(request.GET)
    if not form.is_valid():
        return _invalid(form)
    asked = form.cleaned_data
    calendars = [*Calendar.objects.filter(pk__in=asked["calendar"]).order_by("name", "id")]
    found = read(
        Sheet(calendars, asked["first"], asked["until"], zone(asked["zone"])),
        at=timezone.now(),
        with_reasons={
            each.pk for each in calendars if user.may("catalog.view_calendar", each.provider_id)
        },
    )
    response = _json(found)
    etag = f'"{sha256(response.content).hexdigest()[:32]}"'
    response["ETag"] = etag
    # If nothing has changed, the response is a 304, and the browser does not draw the diary again.
    return get_conditional_response(request, etag=etag, response=response) or response


@require_POST
def move(request: HttpRequest) -> HttpResponse:
    """Move a booking. A refusal can contain the free times that are nearest to the new time."""

    def act(user: User, form: MoveForm, known: Booking | None) -> Booking:
        return services.reschedule_booking(
            booking_id=form.cleaned_data["booking"],
            actor=user,
            start_time=_new_start(known, form),
            at=timezone.now(),
        )

    return _change(request, MoveForm, act, done=_("Moved to %(time)s."))


def _new_start(known: Booking | None, form: MoveForm) -> datetime:
    """Return the start that the form names.

    If the user left the time alone, this is the present start of the booking: the form has no
    seconds, and if an hour occurs twice, it does not say which occurrence it shows.
    """
    chosen: str = form.cleaned_data["start"].isoformat(timespec="minutes")
    if known and wall(known.start_time, zone(form.cleaned_data["zone"])).startswith(chosen):
        return known.start_time
    return form.instant("start")


@require_POST
def confirm(request: HttpRequest) -> HttpResponse:
    """Confirm a booking."""

    def act(user: User, form: ShownBookingForm, known: Booking | None) -> Booking:
        return services.change_status(
            booking_id=form.cleaned_data["booking"],
            status=Booking.Status.CONFIRMED,
            actor=user,
            at=timezone.now(),
        )

    return _change(request, ShownBookingForm, act, done=_("Confirmed for %(time)s."))


@require_safe
def book(request: HttpRequest) -> HttpResponse:
    """Redirect to the page for booking during a call, with the service and the time chosen.

    Without a service, only the day is chosen. The diary's script has only wall-clock times. This
    view turns them into instants.
    """
    if not request.user.has_perm("bookings.add_booking"):
        raise PermissionDenied
    chosen = {"diary": request.GET.get("diary", "")}
    form = BookForm(request.GET)
    if form.is_valid():
        service, start = form.cleaned_data["service"], form.instant("start")
        calendar = (
            Calendar.objects.filter(services=service).order_by("id").first() if service else None
        )
        tz = zone(calendar.timezone if calendar else form.cleaned_data["zone"])
        chosen["day"] = start.astimezone(tz).date().isoformat()
        if service:
            chosen["service"] = str(service)
            chosen["start"] = start.astimezone(UTC).isoformat(timespec="seconds")[:19] + "Z"
    address = reverse("admin:bookings_booking_add")
    return HttpResponseRedirect(f"{address}?{urlencode(chosen)}")


@require_POST
def close(request: HttpRequest) -> HttpResponse:
    """Close a calendar for a period, and return links to the first bookings in that period.

    No booking is changed.
    """

    def act(user: User, form: CloseForm) -> HttpResponse:
        _time_off, affected = catalog.create_time_off(
            calendar_id=form.cleaned_data["calendar"],
            actor=user,
            start_time=form.instant("start"),
            end_time=form.instant("end"),
            reason=form.cleaned_data["reason"],
            at=timezone.now(),
        )
        links = _links(affected, user, form)
        return _json({"message": _closed_message(affected), "bookings": links})

    return _answer(request, CloseForm, act)


@require_POST
def reopen(request: HttpRequest) -> HttpResponse:
    """Delete time off of a calendar."""

    def act(user: User, form: ReopenForm) -> HttpResponse:
        catalog.delete_time_off(
            calendar_id=form.cleaned_data["calendar"],
            time_off_id=form.cleaned_data["time_off"],
            actor=user,
        )
        return _json({"message": _("The time off was deleted.")})

    return _answer(request, ReopenForm, act)


def _change(
    request: HttpRequest,
    form_class: type[ShownBookingForm],
    act: Callable[[User, Any, Booking | None], Booking],
    *,
    done: str,
) -> HttpResponse:
    """Change a booking with `act`, and return the message `done` with its start.

    If somebody has changed the booking since the diary loaded it, `act` is not called or its change
    is undone. The response then contains the current state of the booking, so that the user can
    decide again.
    """

    def change(user: User, form: ShownBookingForm) -> HttpResponse:
        known = Booking.objects.filter(pk=form.cleaned_data["booking"]).first()
        if known and version_of(known.updated_at) != form.cleaned_data["version"]:
            return _changed(known, form)
        attempt = partial(act, user, form, known)
        try:
            booking = if_unchanged(known, attempt) if known else attempt()
        except IntegrityError as error:
            if known is None or not is_outdated(error):
                raise
            known.refresh_from_db()
            return _changed(known, form)
        return _json({"message": done % {"time": _written(booking.start_time, form)}})

    return _answer(request, form_class, change)


def _answer(
    request: HttpRequest, form_class: type[ZoneForm], act: Callable[[User, Any], HttpResponse]
) -> HttpResponse:
    """Return what `act` returns for a valid form, or else the errors of the form or the refusal."""
    form = form_class(request.POST)
    if not form.is_valid():
        return _invalid(form)
    try:
        return act(request.user, form)  # type: ignore[arg-type]
    except REFUSALS as error:
        return _refused(error, form)


def _slot_url(request: HttpRequest) -> str:
    """Return the URL of the page of a slot, with "ID" in place of its id.

    For users who may not see slots, return the URL of the list of the bookings of the slot.
    """
    if admin.site.get_model_admin(Slot).has_view_permission(request):
        return reverse("admin:bookings_slot_change", args=["ID"])
    # Without `start_time__isnull`, the list shows only today and later (`UpcomingFilter`).
    return list_of(Booking, slot__id__exact="ID", start_time__isnull=False)


def _may_move(user: User, calendar: Calendar) -> bool:
    return user.may("bookings.change_booking", calendar.provider_id)


def _may_close(user: User, calendar: Calendar) -> bool:
    return user.may("catalog.change_calendar", calendar.provider_id)


def _chosen(ids: list[str]) -> list[Calendar]:
    known = []
    for text in ids[:MAX_CALENDARS]:
        try:
            known.append(UUID(text))
        except ValueError:
            continue
    return [*Calendar.objects.filter(pk__in=known).order_by("name", "id")] if known else []


def _first(offered: list[Calendar], user: User) -> list[Calendar]:
    own = Calendar.objects.filter(provider=user).order_by("name", "id")
    return [*own[:MAX_CALENDARS]] or offered[:SHOWN_FIRST]


def _zone(name: str, shown: list[Calendar], user: User) -> ZoneInfo:
    """Return the named zone, else the zone that all shown calendars share, else the user's zone."""
    if name in zone_names():
        return zone(name)
    zones = {calendar.timezone for calendar in shown}
    return zone(zones.pop() if len(zones) == 1 else user.timezone)


def _day(text: str, now: datetime) -> str:
    try:
        return parse_day(text).isoformat()
    except ValueError:
        return now.date().isoformat()


def _json(content: dict[str, Any], status: int = 200) -> HttpResponse:
    return HttpResponse(dumps(content), content_type="application/json", status=status)


def _invalid(form: Form) -> HttpResponse:
    """Return the errors of a form, as one message and by field."""
    fields = {name: [*map(str, messages)] for name, messages in form.errors.items()}
    text = " ".join(message for messages in fields.values() for message in messages)
    return _json({"message": text, "fields": fields}, 400)


def _refused(error: Exception, form: ZoneForm) -> HttpResponse:
    """Return the message of a refusal, and the free times that it offers instead."""
    tz = zone(form.cleaned_data["zone"])
    alternatives = getattr(error, "members", {}).get("alternatives", [])
    kinds = {Conflict: 409, Forbidden: 403, ObjectDoesNotExist: 404, Unavailable: 503}
    status = next((code for kind, code in kinds.items() if isinstance(error, kind)), 400)
    return _json(
        {
            "message": message_of(error),
            "alternatives": [
                {
                    "start": wall(each["start_time"], tz),
                    "label": _written(each["start_time"], form),
                }
                for each in alternatives
            ],
        },
        status,
    )


def _changed(booking: Booking, form: ZoneForm) -> HttpResponse:
    """Return the current state of a booking that has changed since the diary loaded it."""
    tz = zone(form.cleaned_data["zone"])
    words = {
        "time": _written(booking.start_time, form),
        "state": STATES[booking.status],
    }
    return _json(
        {
            "message": _(
                "Somebody has just changed this booking. Now it is on %(time)s (%(state)s)."
            )
            % words,
            "version": str(version_of(booking.updated_at)),
            "current": {"start": wall(booking.start_time, tz), "end": wall(booking.end_time, tz)},
        },
        409,
    )


def _written(moment: datetime, form: ZoneForm) -> str:
    """Return an instant in words, in the zone of a form."""
    return dated(moment.astimezone(zone(form.cleaned_data["zone"])), "DAY_FORMAT")


def _closed_message(affected: Affected) -> str:
    if not affected.count:
        return _("Closed.")
    return ngettext(
        "Closed. %(count)d booking is in this time and stays as it is.",
        "Closed. %(count)d bookings are in this time and stay as they are.",
        affected.count,
    ) % {"count": affected.count}


def _links(affected: Affected, viewer: User, form: ZoneForm) -> list[dict[str, str]]:
    """Return the URL and a description of each of the first bookings that are affected."""
    tz = zone(form.cleaned_data["zone"])
    found = described(affected, viewer=viewer, tz=tz)
    return [{"url": each.url, "label": each.text} for each in found]


def _words() -> dict[str, str]:
    """Return the texts that the diary's script shows."""
    return {
        "off": _("Time off"),
        "free": _("Free time"),
        "reopen": _("Open again"),
        "taken": _("%(taken)s of %(capacity)s taken"),
        "pending": _("%(count)s to confirm"),
        "minutes": _("%(count)s min"),
        "book": _("Book: %(service)s"),
        "no_service": _("Nothing can be booked here outside of classes."),
        "over": _("This time is over."),
        "hidden": _("%(count)s more"),
        "dismiss": _("Dismiss"),
        "failed": _("The diary could not be loaded. It is loaded again automatically."),
        "not_sent": _(
            "The server did not answer, so the change may not have been made. Reload the diary."
        ),
        "signed_out": _("You are signed out. Reload the page to sign in again."),
        "more": _("Too much to show: choose fewer calendars or a shorter period."),
        "empty": _("No bookings on these days."),
    }


PAGES.add("diary")(
    Page(
        Menu.DIARY,
        gettext_lazy("Diary"),
        "admin:bookings_diary",
        "bookings.view_booking",
        urls=[
            path("diary/", page, name="bookings_diary"),
            path("diary/sheet/", sheet, name="bookings_diary_sheet"),
            path("diary/move/", move, name="bookings_diary_move"),
            path("diary/book/", book, name="bookings_diary_book"),
            path("diary/confirm/", confirm, name="bookings_diary_confirm"),
            path("diary/close/", close, name="bookings_diary_close"),
            path("diary/reopen/", reopen, name="bookings_diary_reopen"),
        ],
        is_button=True,
    )
)
