"""Sends pending messages to webhooks, in the order of events, signed as in Standard Webhooks.

For each webhook, one job at a time sends messages over one connection that is kept open. The job
records the results of several messages together. If a worker dies after it has sent a message and
before it has recorded the result, the message is sent again with the same id.

A message that fails is retried a few seconds later, while the other messages of the webhook wait.
If it fails again, the others go on, and it is retried by itself.
"""

import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from threading import BoundedSemaphore
from time import monotonic
from typing import TYPE_CHECKING
from uuid import UUID

import standardwebhooks
from asgiref.sync import sync_to_async
from django.db import transaction
from django.db.models import F, Min, QuerySet

from bookings.payloads import payloads
from bookings.webhooks.models import Attempt, Delivery, Webhook
from bookings.webhooks.services import TEST, wake
from bookit.jobs.queues import WEBHOOKS_AT_A_TIME
from bookit.json import dumps

if TYPE_CHECKING:
    from bookit.outbound import Answer, Connection

# The pauses before each retry. Each is extended by up to a fifth, so that messages that failed
# together are not retried together. They add up to 25 to 31 hours, which is more than the day after
# which a failing webhook is switched off.
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
# The longest pause that a `Retry-After` header can ask for.
LONGEST_PAUSE = PAUSES[-1]
# A webhook is switched off if no attempt has succeeded for this long.
PATIENCE = timedelta(days=1)

# Results are recorded after this many messages or seconds. Up to that many messages are sent again
# when a worker dies, or are still sent after a webhook is switched off.
BATCH = 100
BATCH_SECONDS = 1.0
# Seconds after which a job lets other webhooks go first. Together with the time that one message
# can take, this is less than a worker waits for its jobs when it is told to stop.
TURN = 5.0
# A worker waits for at most this many slow webhooks at a time: those that are failing, and those
# whose answer is late. All other places go to webhooks that answer quickly. So these never wait for
# a place longer than it takes to notice that an answer is late. If all slow places are taken, a
# failing webhook tries again after ANOTHER_TRY, and an attempt whose answer is late fails at once.
SLOW_AT_A_TIME = WEBHOOKS_AT_A_TIME // 4
SLOW = BoundedSemaphore(SLOW_AT_A_TIME)
ANOTHER_TRY = timedelta(seconds=2)


@dataclass(frozen=True)
class Message:
    """The content of a delivery, and the time for which this attempt was planned."""

    delivery_id: UUID
    planned: datetime
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
    """Send the messages of a webhook that are due, for a few seconds, and plan when to continue.

    Args:
        now: a function that returns the current time, because each message has its own timestamp.
    """
    # Imported here because httpx takes 14 MiB, which only a worker needs.
    from bookit import outbound

    until = monotonic() + TURN
    async with AsyncExitStack() as stack:
        connection = None
        has_place = False

        def take_place() -> bool:
            nonlocal has_place
            if not has_place and SLOW.acquire(blocking=False):
                has_place = True
                stack.callback(SLOW.release)
            return has_place

        while True:
            due = await sync_to_async(_due)(webhook_id, at=now())
            if not due.messages:
                break
            if due.is_failing and not take_place():
                await sync_to_async(wake)(webhook_ids=[webhook_id], at=now() + ANOTHER_TRY)
                return
            if connection is None or connection.url != due.url:
                connection = await stack.enter_async_context(outbound.Connection(due.url))
            sent = await _send(due, connection, now, take_place)
            await sync_to_async(_record)(webhook_id, sent)
            if monotonic() > until:
                break
    await sync_to_async(_plan)(webhook_id, at=now())


async def _send(
    due: Due,
    connection: "Connection",
    now: Callable[[], datetime],
    may_wait: Callable[[], bool],
) -> list[Sent]:
    """Send messages until one fails; begin no further message after `BATCH_SECONDS`."""
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
    """Return the messages that are due to be sent to a webhook now."""
    nothing = Due("", (), is_failing=False, messages=())
    webhook = Webhook.objects.delivering().filter(pk=webhook_id).first()
    waiting = Delivery.objects.filter(webhook=webhook_id, status=Delivery.Status.PENDING)
    if webhook is None:
        _give_up(waiting)
        return nothing
    if webhook.paused_until and webhook.paused_until > at:
        return nothing
    found = waiting.filter(next_attempt_at__lte=at).select_related("event")
    rows = [*found.order_by(F("event").asc(nulls_first=True), "id")[:BATCH]]
    shown = iter(payloads([row.event for row in rows if row.event]))
    secrets = [webhook.secret]
    if webhook.previous_secret_expires_at and webhook.previous_secret_expires_at > at:
        secrets.append(webhook.previous_secret)
    return Due(
        url=webhook.url,
        secrets=secrets,
        is_failing=webhook.failing_since is not None,
        messages=[
            Message(
                row.pk,
                row.next_attempt_at or at,
                dumps(
                    next(shown)
                    if row.event
                    else {"type": TEST, "timestamp": row.created_at, "data": {}}
                ),
            )
            for row in rows
        ],
    )


def _give_up(waiting: QuerySet[Delivery]) -> None:
    """Mark the pending deliveries of a webhook that is off as failed, a batch at a time."""
    while True:
        batch = [*waiting.order_by().values_list("pk", flat=True)[: 10 * BATCH]]
        Delivery.objects.filter(pk__in=batch).update(
            status=Delivery.Status.FAILED, next_attempt_at=None
        )
        if len(batch) < 10 * BATCH:
            return


def _plan(webhook_id: UUID, *, at: datetime) -> None:
    """Plan to wake a webhook when its next message is due."""
    webhook = Webhook.objects.filter(pk=webhook_id).first()
    waiting = Delivery.objects.filter(webhook=webhook_id, status=Delivery.Status.PENDING)
    due = waiting.aggregate(due=Min("next_attempt_at"))["due"]
    if webhook and due:
        due = max(due, webhook.paused_until or due)
        wake(webhook_ids=[webhook_id], at=due if due > at else None)


def _record(webhook_id: UUID, sent: Sequence[Sent]) -> None:
    """Record the results of messages; only the last one can have failed."""
    arrived = [each for each in sent if each.arrived]
    if arrived:
        with transaction.atomic():
            _record_arrived(webhook_id, arrived)
    for each in sent[len(arrived) :]:
        with transaction.atomic():
            _record_failed(each)


def _record_arrived(webhook_id: UUID, sent: Sequence[Sent]) -> None:
    ids = [each.message.delivery_id for each in sent]
    there = {*_locked_deliveries(ids).values_list("pk", flat=True)}
    Attempt.objects.bulk_create(
        _attempt(each) for each in sent if each.message.delivery_id in there
    )
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
    if delivery is None:  # It was deleted meanwhile.
        return
    _attempt(sent).save()
    webhook = Webhook.objects.select_for_update(no_key=True).get(pk=delivery.webhook_id)
    failures = delivery.attempts.count()
    was_failing = webhook.failing_since is not None
    # A failed redelivery by hand says too little about the webhook.
    if not was_failing and failures <= len(PAUSES):
        webhook.failing_since = at
    if answer.status == 410:
        _switch_off(
            webhook, "The server responded with 410 Gone: it no longer accepts webhooks.", at
        )
    elif webhook.failing_since and at - webhook.failing_since >= PATIENCE:
        _switch_off(webhook, "No attempt has succeeded for a day.", at)
    if delivery.next_attempt_at == sent.message.planned:  # Otherwise, it was planned anew.
        _plan_retry(delivery, webhook, failures, was_failing=was_failing, sent=sent)
    webhook.save(
        update_fields=[
            "failing_since",
            "paused_until",
            "is_active",
            "disabled_reason",
            "updated_at",
        ]
    )


def _plan_retry(
    delivery: Delivery, webhook: Webhook, failures: int, *, was_failing: bool, sent: Sent
) -> None:
    """Plan the next attempt of a failed delivery, if any, and whether others wait for it."""
    if not webhook.is_active or failures > len(PAUSES):
        delivery.status, delivery.next_attempt_at = Delivery.Status.FAILED, None
    else:
        pause = PAUSES[failures - 1] * random.uniform(1, 1 + JITTER)  # noqa: S311 - no secret
        asked = min(_asked_for(sent.answer.retry_after, sent.at), LONGEST_PAUSE)
        delivery.next_attempt_at = sent.at + max(pause, asked)
        # Other messages wait for one quick retry, but not if the webhook was failing already.
        if failures == 1 and not was_failing and asked <= pause:
            webhook.paused_until = delivery.next_attempt_at
    delivery.save(update_fields=["status", "next_attempt_at"])


def _locked_deliveries(ids: Sequence[UUID]) -> QuerySet[Delivery]:
    """Return and lock the deliveries that still exist, so that nobody deletes them meanwhile."""
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


def _asked_for(retry_after: str, at: datetime) -> timedelta:
    """Return how long a `Retry-After` header asks to wait: it is in seconds, or an HTTP date."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return timedelta(seconds=min(int(text[:12]), LONGEST_PAUSE.total_seconds()))
    try:
        return max(parsedate_to_datetime(text) - at, timedelta())
    except (TypeError, ValueError, OverflowError):  # nothing, no date, or a date without a zone
        return timedelta()


def _switch_off(webhook: Webhook, reason: str, at: datetime) -> None:
    if webhook.is_active:
        webhook.is_active, webhook.disabled_reason, webhook.updated_at = False, reason, at
