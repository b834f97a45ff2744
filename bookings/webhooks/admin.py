"""Webhooks and deliveries in the admin site."""

import json
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

from django.contrib import admin
from django.db.models import Prefetch, QuerySet, prefetch_related_objects
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext, ngettext, ngettext_lazy, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from bookings.events import REPORTED_TYPES
from bookings.subjects import DELETED, booking_subjects
from bookings.webhooks import services as webhooks
from bookings.webhooks.deliveries import contents
from bookings.webhooks.models import Attempt, Delivery, Webhook
from bookit.adminsite.cards import Card, CardsAdmin
from bookit.adminsite.cells import badge, code, exactly, link, moment
from bookit.adminsite.filters import is_set, one_of
from bookit.adminsite.links import list_of, page_for, page_of
from bookit.adminsite.pages import ServedAdmin
from bookit.jobs.extensions import JOB_SUBJECTS, TASK_WORDS, Arguments, Subject, uuid_in
from bookit.json import dumps

# The maximum number of deliveries on the page of a webhook, and of attempts on the page of a
# delivery. A message is retried up to eight times, or more often if somebody sends it again.
SHOWN = 20
# A response with more opening brackets is not formatted.
MAX_BRACKETS = 200

STATES = {
    Delivery.Status.PENDING: _("waiting"),
    Delivery.Status.DELIVERED: _("delivered"),
    Delivery.Status.FAILED: _("failed"),
}

A_TEST = Subject(_("a test"))

for _task, _words in {
    "bookings.deliver": _("Send the messages of a webhook"),
    "bookings.wake_webhooks": _("Wake webhooks whose job was lost"),
    "bookings.prune_deliveries": _("Delete old deliveries"),
}.items():
    TASK_WORDS.add(_task)(_words)


@JOB_SUBJECTS.add("bookings.deliver")
def _of_webhooks(jobs: Sequence[Arguments]) -> Iterable[Subject | None]:
    """Return the webhook of each job."""
    ids = [uuid_in(args.get("webhook_id")) for args in jobs]
    found = Webhook.objects.in_bulk([each for each in ids if each])
    for webhook_id in ids:
        webhook = found.get(webhook_id) if webhook_id else None
        yield Subject(webhook.url, page_of(webhook)) if webhook else None


@admin.register(Webhook)
class WebhookAdmin(CardsAdmin, ServedAdmin):
    """Webhooks, and whether their deliveries arrive. The secrets are hidden."""

    list_display = ["address", "state", "failing", "why_off", "owner", "created"]
    list_filter = [
        "is_active",
        ("failing_since", is_set(_("attempts"), yes=_("All fail"), no=_("Some arrive"))),
        "created_at",
    ]
    list_select_related = ["owner"]
    search_fields = ["id", "url"]
    exclude = ["secret", "previous_secret"]
    actions = ["send_test", "switch_on", "switch_off"]
    buttons = ["send_test", "switch_on", "switch_off"]
    delete_note = _("The log of its deliveries is deleted, and messages that wait are not sent.")

    @admin.display(description=_("URL"), ordering="url")
    def address(self, webhook: Webhook) -> str:
        """Return the URL to which events are sent."""
        return webhook.url

    @admin.display(description=_("State"))
    def state(self, webhook: Webhook) -> Any:
        """Return whether messages are sent, and whether they arrive."""
        if not webhook.is_active or not webhook.has_admin:
            return badge("off", _("off"))
        return badge("failing", _("failing")) if webhook.failing_since else badge("on", _("on"))

    @admin.display(description=_("Failing since"), empty_value="")
    def failing(self, webhook: Webhook) -> Any:
        """Return the time since which every attempt has failed."""
        return moment(webhook.failing_since)

    @admin.display(description=_("Why nothing is sent"), empty_value="")
    def why_off(self, webhook: Webhook) -> str:
        """Return why nothing is sent, if there is a reason."""
        # The worker stores reasons in English, as the API shows them.
        return webhook.why_off and gettext(webhook.why_off)

    @admin.display(description=_("Created"))
    def created(self, webhook: Webhook) -> Any:
        """Return when the webhook was created."""
        return moment(webhook.created_at)

    def offers(self, row: Webhook, action: str) -> bool:
        """Return whether an action has an effect.

        A webhook that is switched on, but whose owner is no longer an admin, sends nothing. It can
        be switched on, and off.
        """
        is_on = row.is_active and row.has_admin
        if action == "switch_on":
            return not is_on
        return row.is_active if action == "switch_off" else is_on

    def cards(self, request: HttpRequest, row: Webhook) -> Sequence[Card]:
        """Return the state of a webhook and its last deliveries."""
        zone = request.user.timezone  # type: ignore[union-attr]
        owner: Any = row.owner
        now = timezone.now()
        paused = row.paused_until if (row.paused_until or now) > now else None
        page = page_for(request, owner)
        facts = [
            (_("State"), self.state(row)),
            (_("Why nothing is sent"), self.why_off(row)),
            (_("Every attempt has failed since"), exactly(row.failing_since, zone)),
            (_("Messages wait for a retry until"), exactly(paused, zone)),
            (_("Owner"), link(page, owner.email if page else owner.in_words()) if owner else ""),
            (_("Events"), ", ".join(row.events)),
            (_("Created"), exactly(row.created_at, zone)),
            (
                _("The previous secret is valid until"),
                exactly(row.previous_secret_expires_at, zone),
            ),
            (_("Id"), code(row.pk)),
        ]
        last = [*Delivery.objects.filter(webhook=row).order_by("-created_at", "-id")[:SHOWN]]
        _read_attempts(last)
        return [
            Card(_("Webhook"), facts=facts),
            Card(
                _("Last deliveries"),
                columns=[_("Message"), _("State"), _("Last attempt"), _("Next attempt")],
                lines=[
                    (
                        format_html(
                            '{}<div class="quiet">{}</div>',
                            link(page_of(each), each.type),
                            moment(each.created_at),
                        ),
                        _state(each),
                        _last_attempt(each),
                        moment(each.next_attempt_at),
                    )
                    for each in last
                ],
                more=(
                    list_of(Delivery, webhook__id__exact=row.pk),
                    _("All deliveries of this webhook"),
                ),
            ),
        ]

    @admin.action(description=_("Send a test"), permissions=["change"])
    def send_test(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        """Send a test to the selected webhooks."""

        def send(webhook: Webhook) -> None:
            webhooks.send_test(webhook_id=webhook.pk, at=timezone.now())
            self.log_change(request, webhook, gettext("Sent a test."))

        done = ngettext_lazy(
            "%d test is on its way. The last deliveries show whether it arrives.",
            "%d tests are on their way. The deliveries show whether they arrive.",
        )
        self.apply(request, queryset, send, done=done)

    @admin.action(description=_("Switch on"), permissions=["change"])
    def switch_on(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        """Switch on those selected webhooks that are off, or whose owner is no longer an admin.

        The admin who runs this action becomes their owner.
        """
        self._switch(request, queryset, "switch_on")

    @admin.action(description=_("Switch off"), permissions=["change"])
    def switch_off(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        """Switch the selected webhooks off."""
        self._switch(request, queryset, "switch_off")

    def _switch(self, request: HttpRequest, queryset: QuerySet[Webhook], action: str) -> None:
        """Switch the webhooks on or off, except those on which this has no effect."""
        is_active = action == "switch_on"
        rows = [row for row in queryset.select_related("owner") if self.offers(row, action)]

        def switch(webhook: Webhook) -> None:
            webhooks.update_webhook(
                webhook_id=webhook.pk,
                actor=request.user,  # type: ignore[arg-type]
                changes={"is_active": is_active},
                at=timezone.now(),
            )
            self.log_change(
                request, webhook, gettext("Switched on.") if is_active else gettext("Switched off.")
            )

        on = ngettext_lazy("%d webhook switched on.", "%d webhooks switched on.")
        off = ngettext_lazy("%d webhook switched off.", "%d webhooks switched off.")
        self.apply(request, rows, switch, done=on if is_active else off)

    def delete_row(self, request: HttpRequest, row: Webhook) -> None:
        """Delete a webhook and the log of its deliveries."""
        webhooks.delete_webhook(webhook_id=row.pk)


@admin.register(Delivery)
class DeliveryAdmin(CardsAdmin, ServedAdmin):
    """Messages to webhooks. They can be sent again."""

    list_title = _("Messages to webhooks")
    list_display = ["message", "to", "state", "last_attempt", "next_attempt", "created"]
    list_display_links = ["message"]
    csv_columns = ["created_at", "type", "webhook", "event", "status", "next_attempt_at"]
    list_filter = [
        "status",
        ("type", one_of(lambda: [*REPORTED_TYPES, webhooks.TEST])),
        "webhook",
        "created_at",
    ]
    list_select_related = ["webhook", "event"]
    search_fields = ["id", "event__booking__id", "webhook__url"]
    date_hierarchy = "created_at"
    actions = ["redeliver"]
    buttons = ["redeliver"]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False, because a job deletes old deliveries."""
        return False

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Return the list, after reading the attempts and the subjects of the shown deliveries."""
        changes = super().get_changelist_instance(request)
        changes.result_list = [*changes.result_list]
        _read_attempts(changes.result_list)
        find_subjects(changes.result_list)
        return changes

    @admin.display(description=_("Message"))
    def message(self, delivery: Delivery) -> Any:
        """Return the type of the message, and what it is about."""
        subject: Subject = delivery.subject  # type: ignore[attr-defined]
        return format_html('{}<span class="quiet">{}</span>', delivery.type, subject.words)

    @admin.display(description=pgettext_lazy("message", "To"))
    def to(self, delivery: Delivery) -> Any:
        """Return the URL of the webhook."""
        return link(page_of(delivery.webhook), delivery.webhook.url)

    @admin.display(description=_("State"))
    def state(self, delivery: Delivery) -> Any:
        """Return whether the message has arrived."""
        return _state(delivery)

    @admin.display(description=_("Last attempt"), empty_value="")
    def last_attempt(self, delivery: Delivery) -> Any:
        """Return the result of the last attempt, and how many there were."""
        return _last_attempt(delivery)

    @admin.display(description=_("Next attempt"), empty_value="")
    def next_attempt(self, delivery: Delivery) -> Any:
        """Return when the message will be sent."""
        return moment(delivery.next_attempt_at)

    @admin.display(description=_("Created"), ordering="created_at")
    def created(self, delivery: Delivery) -> Any:
        """Return when the delivery was created."""
        return moment(delivery.created_at)

    def heading(self, row: Delivery) -> Any:
        """Return the type of the message, and where it goes."""
        return _("%(type)s to %(url)s") % {"type": row.type, "url": row.webhook.url}

    def cards(self, request: HttpRequest, row: Delivery) -> Sequence[Card]:
        """Return the message, the request that sends it, and the responses to it."""
        zone = request.user.timezone  # type: ignore[union-attr]
        find_subjects([row])
        subject: Subject = row.subject  # type: ignore[attr-defined]
        facts = [
            (_("State"), _state(row)),
            (_("Webhook"), link(page_of(row.webhook), row.webhook.url)),
            (_("About"), link(subject.path, subject.words)),
            (_("Time of the event"), exactly(row.event.at, zone) if row.event else ""),
            (_("Next attempt"), exactly(row.next_attempt_at, zone)),
        ]
        [content] = contents([row])
        attempts = [*row.attempts.order_by("-id")[:SHOWN]]
        return [
            Card(_("Message"), facts=facts),
            Card(
                _("Responses"),
                columns=[_("When"), _("Result"), _("Response")],
                lines=[
                    (exactly(each.at, zone), _result(each), response)
                    for each, response in zip(attempts, _responses(attempts), strict=True)
                ],
            ),
            Card(
                _("Request"),
                note=_(
                    "This is the message if it is sent now. Each attempt is written and signed "
                    "anew, with the same webhook-id."
                ),
                text="\n".join(
                    [
                        f"POST {row.webhook.url}",
                        "Content-Type: application/json",
                        f"webhook-id: {row.pk}",
                        "",
                        json.dumps(json.loads(dumps(content)), indent=2, ensure_ascii=False),
                    ]
                ),
            ),
        ]

    @admin.action(description=_("Send again"), permissions=["change"])
    def redeliver(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> None:
        """Send the selected messages again."""

        def send(delivery: Delivery) -> None:
            webhooks.redeliver(
                webhook_id=delivery.webhook_id, delivery_id=delivery.pk, at=timezone.now()
            )
            self.log_change(request, delivery, gettext("Sent again."))

        done = ngettext_lazy(
            "%d message will be sent again now.", "%d messages will be sent again now."
        )
        self.apply(request, queryset, send, done=done)


def _read_attempts(deliveries: Sequence[Delivery]) -> None:
    """Read the attempts of all deliveries in one query, without the responses."""
    attempts = Attempt.objects.defer("response").order_by("id")
    prefetch_related_objects([*deliveries], Prefetch("attempts", attempts))


def find_subjects(deliveries: Sequence[Delivery]) -> None:
    """Set the attribute `subject` of each delivery.

    It is the delivery's booking, `DELETED` if this booking was deleted, or `A_TEST` for a test.
    """
    ids = {each.event.booking_id for each in deliveries if each.event}
    found = booking_subjects(ids) if ids else {}
    for each in deliveries:
        subject = found.get(each.event.booking_id, DELETED) if each.event else A_TEST
        each.subject = subject  # type: ignore[attr-defined]


def pretty(text: str) -> str:
    """Return a response, with line breaks and indentation if it is JSON.

    A text with many brackets is returned as it is, because it may be deeply nested. Its indentation
    could take a thousand times its length, and Python limits the depth.
    """
    if text.count("[") + text.count("{") > MAX_BRACKETS:
        return text
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text


def _responses(attempts: Sequence[Attempt]) -> Iterable[Any]:
    """Yield each response as the page shows it. A response equal to the one above is not repeated.

    A receiver often sends the same response again.
    """
    above = ""
    for each in attempts:
        if each.response and each.response == above:
            yield format_html('<span class="quiet">{}</span>', _("the same as above"))
        else:
            yield format_html("<pre>{}</pre>", pretty(each.response)) if each.response else ""
        above = each.response


def _state(delivery: Delivery) -> Any:
    words = STATES.get(delivery.status, delivery.status)  # type: ignore[call-overload]
    return badge(delivery.status, words)


def _last_attempt(delivery: Delivery) -> Any:
    attempts = [*delivery.attempts.all()]
    if not attempts:
        return ""
    words = ngettext("%(number)s attempt", "%(number)s attempts", len(attempts))
    last = attempts[-1]
    return format_html(
        '{}<span class="quiet below">{}</span>',
        last.error or _reason(last.status_code),
        words % {"number": len(attempts)},
    )


def _result(attempt: Attempt) -> Any:
    """Return the status or the error of an attempt, and how long the attempt took."""
    return format_html(
        '{}<span class="quiet below">{}</span>',
        attempt.error or _reason(attempt.status_code),
        _("after %(ms)s ms") % {"ms": attempt.duration_ms},
    )


def _reason(status: int | None) -> str:
    """Return an HTTP status code with its name: `404 Not Found`."""
    try:
        return f"{status} {HTTPStatus(status).phrase}" if status else ""
    except ValueError:
        return str(status)
