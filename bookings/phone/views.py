"""The page of a call, and the requests that its script sends during the call."""

from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.models import User
from bookings.models import Booking
from bookings.phone import services
from bookings.phone.forms import CallForm, CustomerForm, HoldForm, WhenForm
from bookit.adminsite.extensions import PAGES, Page
from bookit.adminsite.links import page_of
from bookit.adminsite.menu import Menu
from bookit.adminsite.refusals import REFUSALS, messages_of
from bookit.adminsite.words import dated
from bookit.times import zone

# The maximum length of the diary's query string. Twenty calendars need 1,000 characters.
MAX_QUERY = 2000

#: The form field that shows a refusal, by the error code of the refusal.
FIELD_OF_CODE = {
    "booking_conflict": "start",
    "slot_full": "start",
    "outside_opening_hours": "start",
    "too_soon": "start",
    "too_far_ahead": "start",
    "service_inactive": "service",
    "invalid_transition": "start",
    "email_taken": "email",
}
#: The form fields by the names that refusals use, which are the names in the API.
FIELD_OF_API = {"start_time": "start", "service_id": "service", "user_id": "customer"}


@require_http_methods(["GET", "HEAD", "POST"])
def page(request: HttpRequest) -> HttpResponse:
    """Show the form of a call, or make the booking that was entered."""
    actor = _actor(request)
    if request.method != "POST":
        # The diary's links to this page can choose a service, a day and a time.
        linked = ("service", "day", "start")
        chosen = {name: request.GET[name] for name in linked if name in request.GET}
        today = timezone.now().astimezone(zone(actor.timezone)).date().isoformat()
        form = CallForm(initial={"confirm": True, "day": today, **chosen}, actor=actor)
        return _form_page(request, form)
    if "show" in request.POST:
        # Without scripts, this button shows the free times. The form is not validated yet.
        return _form_page(request, CallForm(initial=request.POST.dict(), actor=actor))
    form = CallForm(request.POST, actor=actor)
    if not form.is_valid():
        return _form_page(request, form)
    try:
        booking, is_new = _book(form, actor)
    except REFUSALS as error:
        _explain(form, error)
        return _form_page(request, form, refusal=error)
    return _booked(request, booking, is_new=is_new)


def _book(form: CallForm, actor: User) -> tuple[Booking, bool]:
    """Book what the form says. Return the booking, and whether this request made it."""
    at, written = timezone.now(), form.cleaned_data
    chosen = {"service_id": written["service"], "start_time": written["start"], "actor": actor}
    hold_id = written["hold"]
    if hold_id and (booked := services.booked_in_call(hold_id=hold_id, **chosen)):
        return booked, False
    held = services.hold(
        **chosen,
        customer=form.caller.customer,
        at=at,
        overrides_limits=written.get("overrides", False),
        instead_of=hold_id,
    )
    # If the booking is refused now, the corrected form books this hold.
    data: Any = form.data
    data = data.copy()
    data["hold"] = str(held.pk)
    form.data = data
    booking = services.book(
        held=held,
        caller=form.caller,
        actor=actor,
        at=at,
        notes=written["notes"],
        confirm=written.get("confirm", False),
    )
    return booking, True


def _booked(request: HttpRequest, booking: Booking, *, is_new: bool) -> HttpResponse:
    """Redirect to the diary if the call began there, or else to the booking.

    Users who may not see bookings get the form of the next call. The message repeats what was
    booked, because the receptionist reads it to the customer.
    """
    another = reverse("admin:bookings_phone")
    tz = zone(booking.calendar.timezone)
    messages.success(
        request,
        format_html(
            '{}: {}, {}, {} ({}). <a href="{}">{}</a>',
            _("Booked") if is_new else _("This was booked already"),
            booking.attendee()["attendee_name"],
            booking.service.title,
            dated(booking.start_time.astimezone(tz), "LONG_DAY_FORMAT"),
            tz.key,
            another,
            _("Take another call"),
        ),
    )
    if not _actor(request).may("bookings.view_booking"):
        return HttpResponseRedirect(another)
    if query := _diary(request):
        # The call began in the diary, which shows the same days and calendars again.
        return HttpResponseRedirect(f"{reverse('admin:bookings_diary')}?{query}")
    return HttpResponseRedirect(page_of(booking))


def _form_page(
    request: HttpRequest, form: CallForm, *, refusal: Exception | None = None
) -> HttpResponse:
    """Show the form. If a service is chosen, show its free times."""
    context = {
        **admin.site.each_context(request),
        "title": _("Book for a customer"),
        "opts": Booking._meta,
        "form": form,
        "diary": _diary(request),
        "has_view_permission": _actor(request).may("bookings.view_booking"),
        "words": _words(),
        **_times(request, _when(form), chosen=str(form["start"].value() or ""), refusal=refusal),
    }
    return TemplateResponse(request, "admin/bookings/booking/phone.html", context)


def _words() -> dict[str, str]:
    """Return the texts that the page's script shows."""
    return {
        "start": _("Choose a service and a time. The time is held during the call."),
        "new": _("A new customer, who gets emails about the booking."),
        "found": _("A customer with an account."),
        "coming": _("Next bookings:"),
        "name": _("Write down the name."),
        "reach": _(
            "Enter a phone number or an email address at which the customer can be reached."
        ),
        "service": _("Choose a service."),
        "time": _("Choose one of the free times."),
        "holding": _("Holding the time\u2026"),
        "held": _("Held for this call: %(time)s."),
        "ended": _("The hold has ended. Choose a time again."),
        "lost": _("The server did not answer. Check the connection, or sign in again."),
    }


def _diary(request: HttpRequest) -> str:
    """Return the query string of the diary in which the call began; empty if it began elsewhere."""
    return (request.POST or request.GET).get("diary", "")[:MAX_QUERY]


def _when(form: CallForm) -> WhenForm:
    """Return the part of the form on which the free times depend."""
    names = [name for name in WhenForm.base_fields if name in form.fields]
    values = {name: form[name].value() or "" for name in names}
    choices = form.fields["service"].choices  # type: ignore[attr-defined]
    if not values["service"] and choices and choices[0][0]:
        # If there is only one service, the browser shows it as chosen.
        values["service"] = choices[0][1][0][0]
    return WhenForm(values, actor=form.actor, listed=form.listed)


def _times(
    request: HttpRequest, when: WhenForm, *, chosen: str, refusal: Exception | None = None
) -> dict[str, Any]:
    """Return the template context of the free times.

    `offers` is None if `when` is not valid, for example because no service is chosen.
    """
    offers = None
    if when.is_valid():
        at = timezone.now()
        offers = services.offer(
            service_id=when.cleaned_data["service"],
            day=when.cleaned_data["day"],
            at=at,
            actor=_actor(request),
            overrides_limits=when.cleaned_data.get("overrides", False),
            hold_id=when.cleaned_data["hold"],
        )
    return {
        "offers": offers,
        "chosen": chosen,
        "viewer_zone": _zone_of_viewer(request, offers),
        "alternatives": getattr(refusal, "members", {}).get("alternatives", []),
    }


def _zone_of_viewer(request: HttpRequest, offers: services.Offers | None) -> Any:
    """Return the receptionist's zone, if the page also shows the times in that zone; else None.

    An account in UTC has probably never chosen a zone, because UTC is the default.
    """
    name = _actor(request).timezone
    return None if offers is None or name in ("UTC", str(offers.tz)) else zone(name)


@require_GET
def times(request: HttpRequest) -> HttpResponse:
    """Return the free times of a service, as a part of the page."""
    when = WhenForm(request.GET, actor=_actor(request))
    context = _times(request, when, chosen=request.GET.get("start", ""))
    return TemplateResponse(request, "admin/bookings/booking/phone_times.html", context)


@require_GET
def customers(request: HttpRequest) -> HttpResponse:
    """Return a few customers who match `q`; see `services.find_customers`."""
    found = services.find_customers(words=request.GET.get("q", "")[:200], actor=_actor(request))
    rows = [
        {"id": str(each.pk), "name": each.name, "email": each.mailbox, "phone": each.phone}
        for each in found
    ]
    return JsonResponse({"customers": rows})


@require_GET
def visits(request: HttpRequest) -> HttpResponse:
    """Return the next bookings and the last service of the customer with the id `customer`."""
    form = CustomerForm(request.GET, actor=_actor(request))
    if not form.is_valid() or form.cleaned_data["customer"] is None:
        return JsonResponse({"coming": [], "service": None})
    found = services.visits(
        customer=form.cleaned_data["customer"], actor=_actor(request), at=timezone.now()
    )
    coming = [
        {
            "words": _("%(when)s: %(service)s") % {"when": _when_of(each), "service": each.service},
            "url": page_of(each),
        }
        for each in found.coming
    ]
    return JsonResponse({"coming": coming, "service": found.service_id})


def _when_of(booking: Booking) -> str:
    local = booking.start_time.astimezone(zone(booking.calendar.timezone))
    return dated(local, "DAY_OF_YEAR_FORMAT")


@require_POST
def hold(request: HttpRequest) -> HttpResponse:
    """Hold the chosen time during the call. Return the id of the hold and how long it lasts.

    If the time is refused, return the errors and the free times instead.
    """
    form = HoldForm(request.POST, actor=_actor(request))
    refusal: Exception | None = None
    if form.is_valid():
        try:
            held = services.hold(
                service_id=form.cleaned_data["service"],
                start_time=form.cleaned_data["start"],
                customer=form.cleaned_data["customer"],
                actor=_actor(request),
                at=timezone.now(),
                overrides_limits=form.cleaned_data.get("overrides", False),
                instead_of=form.cleaned_data["hold"],
            )
        except REFUSALS as error:
            refusal = error
            _explain(form, error)
        else:
            return JsonResponse({"hold": str(held.pk), "seconds": _seconds_left(held)})
    when = WhenForm(request.POST, actor=_actor(request), listed=form.listed)
    context = _times(request, when, chosen="", refusal=refusal)
    shown = render_to_string("admin/bookings/booking/phone_times.html", context, request)
    # The status is 200, because the page's script takes other statuses for a lost connection.
    refused = {name: [*texts] for name, texts in form.errors.items()}
    return JsonResponse({"errors": refused, "times": shown})


def _seconds_left(held: Booking) -> float:
    """Return the seconds until a hold expires.

    The script gets a duration and not a time, because the clock of a browser may be wrong.
    """
    ends = held.hold_expires_at
    return (ends - timezone.now()).total_seconds() if ends else 0.0


@require_POST
def release(request: HttpRequest) -> HttpResponse:
    """Release a hold that the call no longer needs, or whose call has ended without a booking."""
    form = HoldForm(request.POST, actor=_actor(request))
    form.full_clean()  # Only the field `hold` has to be valid.
    held: UUID | None = form.cleaned_data.get("hold")
    if held is not None:
        services.release(hold_id=held, actor=_actor(request), at=timezone.now())
    return HttpResponse(status=204)


def _explain(form: CallForm | HoldForm, error: Exception) -> None:
    """Add a refusal to the form, at the field that caused it."""
    code = getattr(error, "code", "")
    cause = FIELD_OF_CODE.get(code)
    if code == "too_many_holds":
        # The holds belong to the customer or, before a customer is chosen, to the receptionist.
        cause = "customer" if form.cleaned_data.get("customer") else "start"
    for name, texts in messages_of(error).items():
        field = FIELD_OF_API.get(name or "", name) or cause
        form.add_error(field if field in form.fields else None, texts)


def _actor(request: HttpRequest) -> User:
    return request.user  # type: ignore[return-value]


# "Add booking" shows the same page (`bookings.desk.admin`). The page also has a URL of its own, so
# that the menu can mark the link to the current page.
PAGES.add("phone")(
    Page(
        Menu.DIARY,
        gettext_lazy("Book for a customer"),
        "admin:bookings_phone",
        "bookings.add_booking",
        urls=[
            path("phone/", page, name="bookings_phone"),
            path("phone/customers/", customers, name="bookings_phone_customers"),
            path("phone/visits/", visits, name="bookings_phone_visits"),
            path("phone/times/", times, name="bookings_phone_times"),
            path("phone/hold/", hold, name="bookings_phone_hold"),
            path("phone/release/", release, name="bookings_phone_release"),
        ],
        is_button=True,
    )
)
