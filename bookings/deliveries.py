"""Sends to a webhook what waits for it, in the order of events, signed as Standard Webhooks says.

One job at a time does it for each webhook, over one connection that is kept. It writes down what
came of its messages together: one that was sent but not written down, because a worker died, is
sent again under the same id.

A message that fails is tried once more a few seconds later, while the others wait for it. If it
fails again, they go on, and it is retried by itself.
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

from bookings.models import Attempt, Delivery, Webhook
from bookings.payloads import payloads
from bookings.webhooks import TEST, wake
from bookit.jobs import WEBHOOKS_AT_A_TIME
from bookit.renderers import dumps

if TYPE_CHECKING:
    from bookit.outbound import Answer, Connection

# Before each attempt after the first, and up to a fifth more, so that what failed together does not
# come back together: 25 to 31 hours in all, more than the day after which a webhook is given up.
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
# The most that a `Retry-After` can ask for.
LONGEST_PAUSE = PAUSES[-1]
# How long a webhook may fail without one success.
PATIENCE = timedelta(days=1)

# Messages that are sent before what came of them is written down, and seconds for which it waits:
# so much is sent again when a worker dies, or too late when a webhook is switched off.
BATCH = 100
BATCH_SECONDS = 1.0
# Seconds after which a job lets other webhooks go first. With the time that one message takes it is
# less than a worker that is told to stop waits for its jobs.
TURN = 5.0
# So many of a worker's webhooks may be waited for: those that fail, and those whose answer is late.
# All other places go to webhooks that answer quickly, which nobody therefore keeps waiting for
# longer than it takes to see that an answer is late. A failing webhook that finds no place tries
# again after ANOTHER_TRY. A late answer that finds none is not waited for: the attempt has failed.
SLOW_AT_A_TIME = WEBHOOKS_AT_A_TIME // 4
SLOW = BoundedSemaphore(SLOW_AT_A_TIME)
ANOTHER_TRY = timedelta(seconds=2)

# Columns of a webhook.
CHANGED_BY_FAILURES = (
    "failing_since",
    "paused_until",
    "is_active",
    "disabled_reason",
    "updated_at",
)


@dataclass(frozen=True)
class Message:
    """What is sent of a delivery, and when that attempt was planned for."""

    delivery_id: UUID
    planned: datetime
    content: bytes


@dataclass(frozen=True)
class Due:
    """The messages of a webhook that are due, in order, and where they go."""

    url: str
    secrets: Sequence[str]
    is_failing: bool
    messages: Sequence[Message]


@dataclass(frozen=True)
class Sent:
    """What came of a message."""

    message: Message
    at: datetime
    answer: "Answer"

    @property
    def arrived(self) -> bool:
        """Whether the other side has taken it."""
        return self.answer.status is not None and 200 <= self.answer.status < 300


async def deliver(*, webhook_id: UUID, now: Callable[[], datetime]) -> None:
    """Send a webhook what is due, for a few seconds, and plan when to go on.

    Args:
        now: the clock, because each message has a time of its own.
    """
    # Here: httpx takes 14 MiB, which only a worker needs.
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
                await sync_to_async(wake)([webhook_id], at=now() + ANOTHER_TRY)
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
    """Send messages, up to the first that fails, and for no longer than `BATCH_SECONDS`."""
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
    """Return what is to be sent to a webhook now."""
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
    """Let the deliveries of a webhook that is off end as failed, a batch at a time."""
    while True:
        batch = [*waiting.order_by().values_list("pk", flat=True)[: 10 * BATCH]]
        Delivery.objects.filter(pk__in=batch).update(
            status=Delivery.Status.FAILED, next_attempt_at=None
        )
        if len(batch) < 10 * BATCH:
            return


def _plan(webhook_id: UUID, *, at: datetime) -> None:
    """Wake a webhook again when something is due."""
    webhook = Webhook.objects.filter(pk=webhook_id).first()
    waiting = Delivery.objects.filter(webhook=webhook_id, status=Delivery.Status.PENDING)
    due = waiting.aggregate(due=Min("next_attempt_at"))["due"]
    if webhook and due:
        due = max(due, webhook.paused_until or due)
        wake([webhook_id], at=due if due > at else None)


def _record(webhook_id: UUID, sent: Sequence[Sent]) -> None:
    """Write down what came of messages, of which only the last can have failed."""
    arrived = [each for each in sent if each.arrived]
    if arrived:
        with transaction.atomic():
            _record_arrived(webhook_id, arrived)
    for each in sent[len(arrived) :]:
        with transaction.atomic():
            _record_failed(each)


def _record_arrived(webhook_id: UUID, sent: Sequence[Sent]) -> None:
    ids = [each.message.delivery_id for each in sent]
    there = {*_locked(ids).values_list("pk", flat=True)}
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
    """Write down an attempt, and what becomes of its delivery and its webhook."""
    at, answer = sent.at, sent.answer
    delivery = _locked([sent.message.delivery_id]).first()
    if delivery is None:  # It was deleted meanwhile.
        return
    _attempt(sent).save()
    webhook = Webhook.objects.select_for_update(no_key=True).get(pk=delivery.webhook_id)
    failures = delivery.attempts.count()
    was_failing = webhook.failing_since is not None
    # One that was sent once more by hand says too little about the webhook.
    if not was_failing and failures <= len(PAUSES):
        webhook.failing_since = at
    if answer.status == 410:
        _switch_off(webhook, "It answered 410 Gone: nobody wants to be told.", at)
    elif webhook.failing_since and at - webhook.failing_since >= PATIENCE:
        _switch_off(webhook, "For a day no attempt has succeeded.", at)
    if delivery.next_attempt_at == sent.message.planned:  # Else somebody else has planned it.
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
    """Say when a delivery that failed is tried again, if ever, and whether others wait for it."""
    if not webhook.is_active or failures > len(PAUSES):
        delivery.status, delivery.next_attempt_at = Delivery.Status.FAILED, None
    else:
        pause = PAUSES[failures - 1] * random.uniform(1, 1 + JITTER)  # noqa: S311 - no secret
        asked = min(_asked_for(sent.answer.retry_after, sent.at), LONGEST_PAUSE)
        delivery.next_attempt_at = sent.at + max(pause, asked)
        # Others wait for one quick retry, and for none while the webhook fails anyway.
        if failures == 1 and not was_failing and asked <= pause:
            webhook.paused_until = delivery.next_attempt_at
    delivery.save(update_fields=["status", "next_attempt_at"])


def _locked(ids: Sequence[UUID]) -> QuerySet[Delivery]:
    """Return deliveries that nobody can delete meanwhile; those that are gone get no attempts."""
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
    """Return the headers of a message, signed with each secret that is valid."""
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
    """Return how long a `Retry-After` asks to wait: it is in seconds, or an HTTP date."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return timedelta(seconds=min(int(text[:12]), LONGEST_PAUSE.total_seconds()))
    try:
        return max(parsedate_to_datetime(text) - at, timedelta())
    except (TypeError, ValueError, OverflowError):  # None, no date, or one without a zone
        return timedelta()


def _switch_off(webhook: Webhook, reason: str, at: datetime) -> None:
    if webhook.is_active:
        webhook.is_active, webhook.disabled_reason, webhook.updated_at = False, reason, at
