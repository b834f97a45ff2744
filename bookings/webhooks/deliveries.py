"""Sends messages to webhooks in the order of events, signed as Standard Webhooks specifies.

At most one job runs for each webhook at a time. The job keeps one connection open, sends the
messages over it, and records the results of several messages together. If a worker dies after
sending a message but before recording the result, the message is sent again with the same id.

A message that fails is retried after a few seconds. The other messages to the webhook usually wait
for this retry; see `_schedule_retry`. If the retry fails too, the other messages are sent, and the
failed message is retried on a schedule of its own.
"""

import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from threading import BoundedSemaphore
from time import monotonic
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import standardwebhooks
from asgiref.sync import sync_to_async
from django.db import transaction
from django.db.models import F, Min, QuerySet
from django.utils.translation import gettext_noop

from bookings.models import Booking
from bookings.payloads import payloads
from bookings.webhooks.models import Attempt, Delivery, Webhook
from bookings.webhooks.services import TEST, is_delivering, wake
from bookit.jobs.queues import WEBHOOKS_AT_A_TIME
from bookit.json import dumps

if TYPE_CHECKING:
    from bookit.outbound import Answer, Connection

# The pause before each retry. Each pause is extended at random by up to a fifth (`JITTER`), so that
# messages that failed together are not retried together. In total, the pauses take 25 to 31 hours,
# which is longer than `PATIENCE`. So if every attempt fails, the webhook is switched off at the
# latest when its first message has no retries left.
PAUSES = [
    timedelta(seconds=5),
    timedelta(minutes=1),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=8),
    timedelta(hours=10),
]
JITTER = 0.2
# The longest pause that a `Retry-After` header can request.
MAX_PAUSE = PAUSES[-1]
# A webhook is switched off once all attempts have failed for this long.
PATIENCE = timedelta(days=1)

# Results are recorded after `BATCH` messages, after `BATCH_SECONDS`, or when a message fails. When
# a worker dies, up to `BATCH` messages are sent again. When a webhook is switched off, up to
# `BATCH` messages are still sent.
BATCH = 100
BATCH_SECONDS = 1.0
# The number of messages that are marked as failed at a time.
GIVE_UP_BATCH = 1000
# A job ends after this many seconds, so that the jobs of other webhooks can run. Even if a job has
# just begun to send another message, it ends within the time that a stopping worker gives its jobs.
TURN = 5.0
# A worker has `WEBHOOKS_AT_A_TIME` places. Each webhook that it serves takes a place. A webhook is
# slow if it is failing or if its response is late. Slow webhooks can take at most this many places.
# The other places are left to quick webhooks. A slow webhook delays quick webhooks at most until
# its response is late (`bookit.outbound.LATE`). If all places for slow webhooks are taken, a
# failing webhook tries again after `SLOW_RETRY_PAUSE`, and an attempt whose response is late fails
# immediately.
MAX_SLOW_AT_A_TIME = WEBHOOKS_AT_A_TIME // 4
SLOW_PLACES = BoundedSemaphore(MAX_SLOW_AT_A_TIME)
SLOW_RETRY_PAUSE = timedelta(seconds=2)


@dataclass(frozen=True)
class Message:
    """The content of a delivery, and the time for which this attempt was scheduled.

    Args:
        booking_id: the booking that the message is about; None for a test.
    """

    delivery_id: UUID
    booking_id: UUID | None
    scheduled_for: datetime
    content: bytes


@dataclass(frozen=True)
class Due:
    """The messages of a webhook that are due, in order, and where to send them."""

    url: str
    secrets: Sequence[str]
    is_failing: bool
    messages: Sequence[Message]


@dataclass(frozen=True)
class Sent:
    """A message that was sent, and its result."""

    message: Message
    at: datetime
    answer: "Answer"

    @property
    def arrived(self) -> bool:
        """Whether the receiver has accepted the message."""
        return self.answer.status is not None and 200 <= self.answer.status < 300


async def deliver(*, webhook_id: UUID, now: Callable[[], datetime]) -> None:
    """Send a webhook's due messages for a few seconds, and schedule the job that sends the rest.

    Args:
        now: returns the current time. It is a function because each message has its own timestamp.
    """
    # Imported here because httpx takes 14 MiB of memory, and web processes import this module, too.
    from bookit import outbound

    until = monotonic() + TURN
    async with AsyncExitStack() as stack:
        connection = None
        has_slow_place = False

        def take_slow_place() -> bool:
            nonlocal has_slow_place
            if not has_slow_place and SLOW_PLACES.acquire(blocking=False):
                has_slow_place = True
                stack.callback(SLOW_PLACES.release)
            return has_slow_place

        while True:
            due = await sync_to_async(_due)(webhook_id, at=now())
            if not due.messages:
                break
            if due.is_failing and not take_slow_place():
                await sync_to_async(wake)(webhook_ids=[webhook_id], at=now() + SLOW_RETRY_PAUSE)
                return
            if connection is None or connection.url != due.url:
                connection = await stack.enter_async_context(outbound.Connection(due.url))
            sent = await _send(due, connection, now, take_slow_place)
            await sync_to_async(_record)(webhook_id, sent)
            if monotonic() > until:
                break
    await sync_to_async(_schedule)(webhook_id, at=now())


async def _send(
    due: Due,
    connection: "Connection",
    now: Callable[[], datetime],
    may_wait: Callable[[], bool],
) -> list[Sent]:
    """Send messages until one fails or `BATCH_SECONDS` have passed, and return the results.

    Args:
        may_wait: see `Connection.post`.
    """
    sent: list[Sent] = []
    until = monotonic() + BATCH_SECONDS
    for message in due.messages:
        at = now()
        answer = await connection.post(
            content=message.content,
            headers=_headers(message, due.secrets, at),
            may_wait=may_wait,
        )
        sent.append(Sent(message, at, answer))
        if not sent[-1].arrived or monotonic() > until:
            break
    return sent


def _due(webhook_id: UUID, *, at: datetime) -> Due:
    """Return the first `BATCH` messages that are due at the time `at`.

    While the webhook is paused, no message is due. If the webhook is off or its owner is no longer
    an admin, return no messages, and mark the pending deliveries as failed.
    """
    nothing = Due("", (), is_failing=False, messages=())
    webhook = Webhook.objects.delivering().filter(pk=webhook_id).first()
    waiting = Delivery.objects.filter(webhook=webhook_id, status=Delivery.Status.PENDING)
    if webhook is None:
        _give_up(webhook_id, waiting)
        return nothing
    if webhook.paused_until and webhook.paused_until > at:
        return nothing
    found = waiting.filter(next_attempt_at__lte=at).select_related("event")
    rows = [*found.order_by(F("event").asc(nulls_first=True), "id")[:BATCH]]
    return Due(
        url=webhook.url,
        secrets=[webhook.secret, *webhook.previous_secrets(at)],
        is_failing=webhook.failing_since is not None,
        messages=[
            Message(
                delivery_id=row.pk,
                booking_id=row.event.booking_id if row.event else None,
                scheduled_for=cast("datetime", row.next_attempt_at),
                content=dumps(content),
            )
            for row, content in zip(rows, contents(rows), strict=True)
        ],
    )


def contents(deliveries: Sequence[Delivery]) -> list[dict[str, Any]]:
    """Return what each message says if it is sent now. The content is not stored.

    The number of queries does not depend on the number of deliveries.
    """
    shown = iter(payloads([row.event for row in deliveries if row.event]))
    return [
        next(shown) if row.event else {"type": TEST, "timestamp": row.created_at, "data": {}}
        for row in deliveries
    ]


def _give_up(webhook_id: UUID, waiting: QuerySet[Delivery]) -> None:
    """Mark the pending deliveries of a webhook as failed, in batches. Stop if it is switched on."""
    while True:
        batch = [*waiting.order_by().values_list("pk", flat=True)[:GIVE_UP_BATCH]]
        # Check this after reading the batch, which may contain deliveries that were written since
        # the webhook was switched on.
        if is_delivering(webhook_id=webhook_id):
            return
        with transaction.atomic():
            locked = _locked_deliveries(batch).filter(status=Delivery.Status.PENDING)
            Delivery.objects.filter(pk__in=[each.pk for each in locked]).update(
                status=Delivery.Status.FAILED, next_attempt_at=None
            )
        if len(batch) < GIVE_UP_BATCH:
            return


def _schedule(webhook_id: UUID, *, at: datetime) -> None:
    """Schedule the next job of a webhook for the time when its next message is due."""
    webhook = Webhook.objects.filter(pk=webhook_id).first()
    waiting = Delivery.objects.filter(webhook=webhook_id, status=Delivery.Status.PENDING)
    due = waiting.aggregate(due=Min("next_attempt_at"))["due"]
    if webhook and due:
        due = max(due, webhook.paused_until or due)
        wake(webhook_ids=[webhook_id], at=due if due > at else None)


def _record(webhook_id: UUID, sent: Sequence[Sent]) -> None:
    """Record the results of messages. Only the last message can have failed."""
    arrived = [each for each in sent if each.arrived]
    if arrived:
        with transaction.atomic():
            _record_arrived(webhook_id, arrived)
    for each in sent[len(arrived) :]:
        with transaction.atomic():
            _record_failed(each)


def _without_responses_about_deleted_bookings(sent: Sequence[Sent]) -> list[Sent]:
    """Return the results, without the responses to messages about deleted bookings.

    Such responses must not be stored; see `forget_responses` in `services.py`. The caller must have
    locked the deliveries.
    """
    named = [
        each.message.booking_id for each in sent if each.answer.text and each.message.booking_id
    ]
    stored = {None, *Booking.objects.filter(pk__in=named).values_list("pk", flat=True)}
    return [
        each
        if each.message.booking_id in stored
        else replace(each, answer=replace(each.answer, text=""))
        for each in sent
    ]


def _record_arrived(webhook_id: UUID, sent: Sequence[Sent]) -> None:
    ids = [each.message.delivery_id for each in sent]
    there = {*_locked_deliveries(ids).values_list("pk", flat=True)}
    kept = [each for each in sent if each.message.delivery_id in there]
    Attempt.objects.bulk_create(map(_attempt, _without_responses_about_deleted_bookings(kept)))
    Delivery.objects.filter(pk__in=there).update(
        status=Delivery.Status.DELIVERED, next_attempt_at=None
    )
    Webhook.objects.filter(pk=webhook_id, failing_since__isnull=False).update(
        failing_since=None, paused_until=None
    )


def _record_failed(sent: Sent) -> None:
    """Record a failed attempt, and update its delivery and its webhook."""
    at, answer = sent.at, sent.answer
    delivery = _locked_deliveries([sent.message.delivery_id]).first()
    if delivery is None:  # It was deleted during the attempt.
        return
    [kept] = _without_responses_about_deleted_bookings([sent])
    _attempt(kept).save()
    webhook = Webhook.objects.select_for_update(no_key=True).get(pk=delivery.webhook_id)
    attempts = delivery.attempts.count()
    was_failing = webhook.failing_since is not None
    # The failure of a last retry, or of a redelivery that was requested after the last retry, does
    # not mark the webhook as failing, because the cause may be the message itself.
    if not was_failing and attempts <= len(PAUSES):
        webhook.failing_since = at
    if answer.status == 410:
        _switch_off(
            webhook,
            gettext_noop("The server responded with 410 Gone: it no longer accepts webhooks."),
            at,
        )
    elif webhook.failing_since and at - webhook.failing_since >= PATIENCE:
        _switch_off(webhook, gettext_noop("No attempt has succeeded for a day."), at)
    # If the times differ, another job or a redelivery has already rescheduled the message.
    if delivery.next_attempt_at == sent.message.scheduled_for:
        _schedule_retry(delivery, webhook, attempts, was_failing=was_failing, sent=sent)
    webhook.save(
        update_fields=[
            "failing_since",
            "paused_until",
            "is_active",
            "disabled_reason",
            "updated_at",
        ]
    )


def _schedule_retry(
    delivery: Delivery, webhook: Webhook, attempts: int, *, was_failing: bool, sent: Sent
) -> None:
    """Schedule the retry of a delivery, and decide whether the webhook's other messages wait.

    If the delivery has no retries left or the webhook is off, mark the delivery as failed instead.
    """
    if not webhook.is_active or attempts > len(PAUSES):
        delivery.status, delivery.next_attempt_at = Delivery.Status.FAILED, None
    else:
        pause = PAUSES[attempts - 1] * random.uniform(1, 1 + JITTER)  # noqa: S311 - the pause is not a secret
        ended = sent.at + timedelta(milliseconds=sent.answer.duration_ms)
        requested = min(_requested_pause(sent.answer.retry_after, ended), MAX_PAUSE)
        delivery.next_attempt_at = ended + max(pause, requested)
        # Other messages wait for one quick retry, unless the webhook was already failing.
        if attempts == 1 and not was_failing and requested <= pause:
            webhook.paused_until = delivery.next_attempt_at
    delivery.save(update_fields=["status", "next_attempt_at"])


def _locked_deliveries(ids: Sequence[UUID]) -> QuerySet[Delivery]:
    """Return a query that locks the deliveries that still exist, so that they are not deleted."""
    return Delivery.objects.select_for_update(no_key=True).filter(pk__in=ids).order_by("pk")


def _attempt(sent: Sent) -> Attempt:
    return Attempt(
        delivery_id=sent.message.delivery_id,
        at=sent.at,
        duration_ms=sent.answer.duration_ms,
        status_code=sent.answer.status,
        error=sent.answer.error[:300],
        response=sent.answer.text,
    )


def _headers(message: Message, secrets: Sequence[str], at: datetime) -> dict[str, str]:
    """Return the headers of a message, with a signature for each valid secret."""
    message_id = str(message.delivery_id)
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(
            standardwebhooks.Webhook(secret).sign(message_id, at, message.content.decode())
            for secret in secrets
        ),
    }


def _requested_pause(retry_after: str, at: datetime) -> timedelta:
    """Return the pause that a `Retry-After` header requests, in seconds or until an HTTP date."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        # Python does not parse thousands of digits.
        return timedelta(seconds=int(text[:12]))
    try:
        return max(parsedate_to_datetime(text) - at, timedelta())
    except (TypeError, ValueError, OverflowError):  # empty, not a date, or without a time zone
        return timedelta()


def _switch_off(webhook: Webhook, reason: str, at: datetime) -> None:
    if webhook.is_active:
        webhook.is_active, webhook.disabled_reason, webhook.updated_at = False, reason, at
