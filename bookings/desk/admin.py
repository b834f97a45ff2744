"""The list of bookings, and the page of a booking."""

from collections.abc import Callable, Sequence
from datetime import tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import BadRequest, PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext_lazy

from accounts.models import User
from bookings import services
from bookings.booked import with_bookings
from bookings.desk import (
    history,  # noqa: F401 - the import registers its pages
    words,
)
from bookings.desk import services as desk
from bookings.desk.changes import Result, change_as_shown
from bookings.desk.filters import EndedHoldsFilter, FewRelatedFilter, StatusListFilter
from bookings.desk.forms import CancelForm, MoveForm, NoteForm
from bookings.desk.page import BUTTONS, BookingPage
from bookings.desk.search import found_by
from bookings.diary.reading import STATES
from bookings.exports.files import ICALENDAR
from bookings.mails import services as mails
from bookings.models import Booking, Slot
from bookings.phone import views as phone
from bookings.transitions import AFTER_START, TRANSITIONS
from bookit import money
from bookit.adminsite.cells import badge
from bookit.adminsite.exports import CSV
from bookit.adminsite.filters import UpcomingFilter, upcoming_first
from bookit.adminsite.links import page_for, page_of
from bookit.adminsite.menu import Menu
from bookit.adminsite.pages import ServedAdmin, is_id
from bookit.adminsite.refusals import REFUSALS, Refused, message_of
from bookit.times import zone
from catalog.extensions import DESCRIBED, Described

Action = Callable[["BookingAdmin", HttpRequest, QuerySet[Booking]], Any]
Status = Booking.Status

# The page that asks before it cancels the selected bookings sends each of them as a form field.
# Django accepts at most 1,000 fields, so this number leaves room for all other fields.
MAX_CANCELLED = 500

# The forms on the page of a booking, by their buttons.
FORMS: dict[str, type[forms.Form]] = {"cancel": CancelForm, "move": MoveForm, "note": NoteForm}

DONE = {
    Status.CONFIRMED: gettext_lazy("Confirmed."),
    Status.COMPLETED: gettext_lazy("Marked as completed."),
    Status.NO_SHOW: gettext_lazy("Marked as no-show."),
}

DONE_MANY = {
    Status.CONFIRMED: ngettext_lazy("%d booking confirmed.", "%d bookings confirmed."),
    Status.COMPLETED: ngettext_lazy(
        "%d booking marked as completed.", "%d bookings marked as completed."
    ),
    Status.NO_SHOW: ngettext_lazy(
        "%d booking marked as no-show.", "%d bookings marked as no-show."
    ),
    Status.CANCELLED: ngettext_lazy("%d booking cancelled.", "%d bookings cancelled."),
}


def _status_action(status: Status) -> Action:
    """Return the action that changes the status of the selected bookings to `status`."""

    @admin.action(description=BUTTONS[status], permissions=["change"])
    def run(model_admin: "BookingAdmin", request: HttpRequest, queryset: QuerySet[Booking]) -> None:
        model_admin.apply(
            request,
            queryset,
            lambda booking: _set_status(request, booking, status),
            done=DONE_MANY[status],
            name=name_of,
        )

    run.__name__ = f"mark_{status}"
    return run


def _set_status(request: HttpRequest, booking: Booking, status: str, *, reason: str = "") -> None:
    at = timezone.now()
    is_allowed = status in TRANSITIONS[booking.status]
    # If the change is not allowed, `change_status` says so.
    if is_allowed and status in AFTER_START and booking.start_time > at:
        raise Refused(_("Whether the customer came can be recorded only after the start."))
    services.change_status(
        booking_id=booking.pk,
        status=status,
        actor=request.user,  # type: ignore[arg-type]
        at=at,
        reason=reason,
    )


def _unless_changed(request: HttpRequest, booking: Booking, change: Callable[[], Result]) -> Result:
    """Change a booking, unless somebody has changed it since its page was opened.

    If the request has no `version`, only changes during the request are noticed.

    Raises:
        Refused: somebody has changed the booking.
    """
    shown = request.POST.get("version")
    is_as_shown = shown is None or shown == _contents(request, booking).version
    return change_as_shown(booking, change, is_as_shown=is_as_shown)


def name_of(booking: Booking) -> str:
    """Return the time and the attendee of a booking, by which staff recognise it."""
    tz = zone(booking.calendar.timezone)
    when = words.moment(booking.start_time, tz, beside=timezone.now())
    return f"{when}, {booking.customer()}"


def _contents(request: HttpRequest, booking: Booking) -> BookingPage:
    """Return what the page of a booking shows to the signed-in user now."""
    return BookingPage(
        booking,
        viewer=request.user,  # type: ignore[arg-type]
        at=timezone.now(),
    )


def _title_for_customer(user: User) -> str:
    return _("Bookings of %(name)s") % {"name": user.in_words()}


def _title_for_slot(slot: Slot) -> str:
    when = words.moment(slot.start_time, zone(slot.calendar.timezone), beside=timezone.now())
    return _("%(service)s on %(when)s") % {"service": slot.service.title, "when": when}


@admin.register(Booking)
class BookingAdmin(ServedAdmin):
    """The list of bookings and the page of a booking.

    Each button and action calls a function in a `services.py`, which checks the rules.
    `_set_status` adds one rule.

    Staff make new bookings on the page "Book for a customer" (`bookings.phone`).
    """

    menu = Menu.DIARY
    list_display = ["when", "state", "attendee", "what", "amount"]
    list_display_links = ["when"]
    # An index has the bookings in the order of their start. To order the list by another column,
    # the database would sort all rows.
    sortable_by = ["when"]
    list_filter = [
        ("start_time", UpcomingFilter),
        ("status", StatusListFilter),
        ("calendar", FewRelatedFilter),
        ("service", FewRelatedFilter),
        ("calendar__provider", FewRelatedFilter),
        "created_at",
        EndedHoldsFilter,
    ]
    formats = {"csv": CSV, "ics": ICALENDAR}
    csv_columns = [
        *("start_time", "end_time", "status", "service", "calendar", "user"),
        *("named", "email", "phone", "notes"),
        *("exact_price", "currency", "reason", "created_at"),
    ]
    # This field finds a booking by its id. `found_by` finds bookings by email addresses, phone
    # numbers, and the names of people, services and calendars.
    search_fields = ["id"]
    link_filters = [
        *("status__in", "service__id__exact", "slot__id__exact", "user__id__exact"),
        "currency__exact",
    ]
    search_help_text = gettext_lazy("Name, email, phone or id")
    date_hierarchy = "start_time"
    ordering = ["start_time", "id"]
    list_per_page = 50
    actions: Any = [
        _status_action(Status.CONFIRMED),
        _status_action(Status.COMPLETED),
        _status_action(Status.NO_SHOW),
        "mark_cancelled",
        "resend_mail",
    ]

    delete_note = gettext_lazy("An upcoming booking is cancelled first. Its history stays.")

    class Media:
        css = {"all": ["bookit/booking.css"]}

    def heading(self, row: Booking) -> str:
        """Return what is booked, and for whom."""
        return words.title(row)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may book for customers."""
        return request.user.has_perm("bookings.add_booking")

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show the page on which staff book for a customer.

        Raises:
            PermissionDenied: the user may not book for customers.
        """
        if not self.has_add_permission(request):
            raise PermissionDenied
        return phone.page(request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Booking]:
        """Return the bookings with their users, services, calendars and providers."""
        return super().get_queryset(request).select_related("user", "service", "calendar__provider")

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the list. If a link chose a customer or a slot, the title of the list names it."""
        title = self._title(request)
        more = {"title": title} if title else {}
        return super().changelist_view(request, {**more, **(extra_context or {})})

    def _title(self, request: HttpRequest) -> str:
        users: QuerySet[User] = User.objects.all()
        if not request.user.has_perm("accounts.view_user"):
            # The list already shows which users have bookings. All other accounts stay hidden (see
            # `with_bookings` for the exception).
            users = with_bookings(users)
        by_link: dict[str, tuple[Any, Callable[[Any], str]]] = {
            "user__id__exact": (users, _title_for_customer),
            "slot__id__exact": (
                Slot.objects.select_related("service", "calendar"),
                _title_for_slot,
            ),
        }
        for parameter, (rows, title) in by_link.items():
            pk = request.GET.get(parameter, "").strip()
            row = rows.filter(pk=pk).first() if is_id(pk) else None
            if row is not None:
                return title(row)
        return ""

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Booking], search_term: str
    ) -> tuple[QuerySet[Booking], bool]:
        """Return the booking with this id, or the bookings that `found_by` finds."""
        if search_term.strip() and not is_id(search_term):
            # `StrictChangeList.get_queryset` reads `finds_few`.
            found, request.finds_few = found_by(  # type: ignore[attr-defined]
                search_term, among=queryset
            )
            return found, False
        return super().get_search_results(request, queryset, search_term)

    def get_ordering(self, request: HttpRequest) -> Any:
        """Return the order, which `upcoming_first` explains."""
        return upcoming_first(request)

    # --- Columns --------------------------------------------------------------------------------

    @admin.display(description=gettext_lazy("when"), ordering="start_time")
    def when(self, booking: Booking) -> SafeString:
        """Return the period in the zone of the calendar, and the zone."""
        name = booking.calendar.timezone
        when = words.period(booking.start_time, booking.end_time, zone(name), beside=timezone.now())
        return format_html('{} <span class="below">{}</span>', when, name)

    @admin.display(description=gettext_lazy("status"))
    def state(self, booking: Booking) -> SafeString:
        """Return the badge of the status."""
        return badge(booking.status, STATES[booking.status])

    @admin.display(description=gettext_lazy("attendee"))
    def attendee(self, booking: Booking) -> SafeString:
        """Return the name, the phone number and the email address of the attendee."""
        return format_html(
            '{} <span class="below">{}</span><span class="below">{}</span>',
            self.named(booking),
            self.phone(booking),
            self.email(booking),
        )

    @admin.display(description=gettext_lazy("what"))
    def what(self, booking: Booking) -> SafeString:
        """Return the service and the calendar."""
        title, name = booking.service.title, booking.calendar.name
        return format_html('{} <span class="below">{}</span>', title, name)

    @admin.display(description=gettext_lazy("price"))
    def amount(self, booking: Booking) -> str:
        """Return the price with its currency."""
        return money.written(booking.price, booking.currency)

    # --- Columns of the CSV file ----------------------------------------------------------------

    @admin.display(description=gettext_lazy("attendee name"))
    def named(self, booking: Booking) -> str:
        """Return the name of the attendee."""
        return booking.customer()

    @admin.display(description=gettext_lazy("attendee email"))
    def email(self, booking: Booking) -> str:
        """Return the email address of the attendee."""
        return booking.attendee()["attendee_email"]

    @admin.display(description=gettext_lazy("attendee phone"))
    def phone(self, booking: Booking) -> str:
        """Return the phone number of the attendee."""
        return booking.attendee()["attendee_phone"]

    @admin.display(description=gettext_lazy("price"))
    def exact_price(self, booking: Booking) -> Decimal:
        """Return the price with the decimals of its currency."""
        return money.in_currency(booking.price, booking.currency)

    @admin.display(description=gettext_lazy("cancellation reason"))
    def reason(self, booking: Booking) -> str:
        """Return the reason of a cancellation."""
        return words.reason(booking.cancellation_reason)

    # --- Actions --------------------------------------------------------------------------------

    @admin.action(description=gettext_lazy("Cancel\u2026"), permissions=["change"])
    def mark_cancelled(
        self, request: HttpRequest, queryset: QuerySet[Booking]
    ) -> TemplateResponse | None:
        """Ask for the reason; then cancel the selected bookings.

        The question counts and names only bookings that can be cancelled. If there are none, there
        is no question, and messages say why nothing was changed.
        """
        is_sent = "reason" in request.POST
        form = CancelForm(request.POST if is_sent else None)
        if is_sent and form.is_valid():
            self._cancel_all(request, queryset, reason=form.cleaned_data["reason"])
            return None
        bookings = [*queryset[: MAX_CANCELLED + 1]]
        if len(bookings) > MAX_CANCELLED:
            text = _("Cancel at most %d bookings at a time.") % MAX_CANCELLED
            self.message_user(request, text, messages.ERROR)
            return None
        bookings = [each for each in bookings if Status.CANCELLED in TRANSITIONS[each.status]]
        if not bookings:
            self._cancel_all(request, queryset, reason="")
            return None
        question = self.question(request, _("Cancel bookings"), bookings, shown=name_of)
        context = {**question, "form": form}
        return TemplateResponse(request, "admin/bookings/booking/cancel_selected.html", context)

    def _cancel_all(
        self, request: HttpRequest, queryset: QuerySet[Booking], *, reason: str
    ) -> None:
        self.apply(
            request,
            queryset,
            lambda booking: _set_status(request, booking, Status.CANCELLED, reason=reason),
            done=DONE_MANY[Status.CANCELLED],
            name=name_of,
        )

    @admin.action(description=gettext_lazy("Send the last email again"), permissions=["change"])
    def resend_mail(self, request: HttpRequest, queryset: QuerySet[Booking]) -> None:
        """Send the last email about each selected booking to its attendee again."""
        self.apply(
            request,
            queryset,
            lambda booking: self._resend(request, booking),
            done=ngettext_lazy("%d email will be sent again.", "%d emails will be sent again."),
            name=name_of,
        )

    def _resend(self, request: HttpRequest, booking: Booking) -> None:
        # If a copy is already waiting to be sent, this enqueues no second copy.
        mails.resend(booking=booking, at=timezone.now())
        # The history has no event for a copy of an email, so the admin site's log says who asked
        # for the copy.
        self.log_change(request, booking, _("Asked to send the last email to the attendee again."))

    # --- The page of a booking ------------------------------------------------------------------

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        """Show the page of a booking, or do what the pressed button says."""
        booking = self.get_object(request, object_id) if object_id else None
        if booking is None:
            return super().changeform_view(request, object_id, form_url, extra_context)
        if not self.has_view_or_change_permission(request, booking):
            raise PermissionDenied
        refused: dict[str, Any] = {}
        if request.method == "POST":
            if not self.has_change_permission(request, booking):
                raise PermissionDenied
            done = self._do(request, booking, refused)
            if done is not None:
                return done
        return self._page(request, booking, refused)

    def _page(
        self, request: HttpRequest, booking: Booking, refused: dict[str, Any]
    ) -> TemplateResponse:
        """Return the page.

        Args:
            refused: under the name of its button, the refused form; under "alternatives", the free
                times to offer. Empty if no form was refused.
        """
        page = _contents(request, booking)
        may_change = self.has_change_permission(request, booking)
        move = refused.get("move")
        offers = None
        if may_change and page.can_move and (move or "move" in request.GET):
            offers = page.offers(page.day(request.GET.get("move", "")))
        context = {
            **self.admin_site.each_context(request),
            "title": self.heading(booking),
            "subtitle": None,
            "opts": self.opts,
            "original": booking,
            "media": self.media,
            "page": page,
            "booking": booking,
            "may_change": may_change,
            "may_delete": self.has_delete_permission(request, booking),
            "account": page_for(request, booking.user),
            "cancel": refused.get("cancel") or CancelForm(),
            "note": refused.get("note") or NoteForm(),
            "move": move,
            "alternatives": [
                page.time(each, with_day=True) for each in refused.get("alternatives", [])
            ],
            "offers": offers,
        }
        return TemplateResponse(request, "admin/bookings/booking/page.html", context)

    def _do(
        self, request: HttpRequest, booking: Booking, refused: dict[str, Any]
    ) -> HttpResponse | None:
        """Do what the pressed button says and redirect, or put the refused form into `refused`."""
        button = request.POST.get("do", "")
        form = FORMS[button](request.POST) if button in FORMS else None
        calls = {"cancel": self._cancel, "move": self._move, "note": self._note}
        done = refusal = ""
        try:
            if form is None:
                done = self._press(request, booking, button)
            elif form.is_valid():
                done = calls[button](request, booking, form.cleaned_data)
        except REFUSALS as error:
            refusal = message_of(error)
            if form is not None:
                # Each form has one field, next to which the page shows the refusal.
                form.add_error(next(iter(form.fields)), refusal)
                refused["alternatives"] = getattr(error, "members", {}).get("alternatives", [])
        if form is not None and form.errors:
            if self._has_form(request, booking, button):
                refused[button] = form
                return None
            refusal = " ".join(str(each) for texts in form.errors.values() for each in texts)
        level = messages.ERROR if refusal else messages.SUCCESS
        self.message_user(request, refusal or done, level)
        return HttpResponseRedirect(request.path)

    def _has_form(self, request: HttpRequest, booking: Booking, button: str) -> bool:
        """Return whether the page still has the form of a button and the booking is unchanged."""
        unchanged = self.get_queryset(request).filter(pk=booking.pk, updated_at=booking.updated_at)
        page = _contents(request, booking)
        can = {"cancel": page.can_cancel, "move": page.can_move}
        return can.get(button, True) and unchanged.exists()

    def _press(self, request: HttpRequest, booking: Booking, button: str) -> str:
        if button == "resend":
            self._resend(request, booking)
            return _("The email will be sent again.")
        if button not in BUTTONS:
            raise BadRequest(_("The page of a booking has no such button."))
        _unless_changed(request, booking, lambda: _set_status(request, booking, button))
        return str(DONE[Status(button)])

    def _cancel(self, request: HttpRequest, booking: Booking, values: dict[str, Any]) -> str:
        _unless_changed(
            request,
            booking,
            lambda: _set_status(request, booking, Status.CANCELLED, reason=values["reason"]),
        )
        return _("Cancelled.")

    def _move(self, request: HttpRequest, booking: Booking, values: dict[str, Any]) -> str:
        moved = _unless_changed(
            request,
            booking,
            lambda: services.reschedule_booking(
                booking_id=booking.pk,
                actor=request.user,  # type: ignore[arg-type]
                at=timezone.now(),
                **values["to"],
            ),
        )
        when = words.moment(moved.start_time, zone(booking.calendar.timezone))
        return _("Moved to %(when)s.") % {"when": when}

    def _note(self, request: HttpRequest, booking: Booking, values: dict[str, Any]) -> str:
        desk.add_note(
            booking_id=booking.pk,
            actor=request.user,  # type: ignore[arg-type]
            text=values["text"],
            at=timezone.now(),
        )
        return _("The note was saved.")

    def delete_row(self, request: HttpRequest, row: Booking) -> None:
        """Delete a booking, but not its history."""
        services.delete_booking(
            booking_id=row.pk,
            actor=request.user,  # type: ignore[arg-type]
            at=timezone.now(),
        )


@DESCRIBED.add("bookings")
def describe(*, pks: Sequence[UUID], viewer: User, tz: tzinfo) -> list[Described]:
    """Describe bookings for a page of the admin site, earliest first.

    Only users who may see bookings get the attendee and the link.
    """
    may_see = viewer.may("bookings.view_booking")
    described = []
    rows = Booking.objects.filter(pk__in=pks).select_related("service", "user")
    for booking in rows.order_by("start_time", "id"):
        parts = [words.moment(booking.start_time, tz), booking.service.title]
        if not may_see:
            described.append(Described(" · ".join(parts)))
            continue
        text = " · ".join([*parts, booking.customer()])
        described.append(Described(text, page_of(booking)))
    return described
