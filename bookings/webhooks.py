"""Webhooks: whoever wants to know is told what happens, signed as Standard Webhooks says.

A delivery is one message to one webhook. Its jobs carry the moment for which the attempt was
planned, and do nothing unless the delivery still waits for that very attempt: so a job that runs
twice, or after its delivery was sent again by hand, harms nothing.

Deliveries of a webhook share a lock: the next one is not tried before the one before it has come to
its end, or has failed twice in a row. Then that one goes on by itself, and so do those after it.
"""

import random
import secrets
from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import standardwebhooks
from django.db import connection, transaction
from procrastinate.contrib.django import app

from bookings.events import TOLD
from bookings.models import Attempt, Delivery, Webhook
from bookings.payloads import payloads
from bookit.batches import delete_in_batches
from bookit.errors import Conflict, Invalid
from bookit.renderers import dumps

if TYPE_CHECKING:
    from bookit.outbound import Answer

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
# So long a webhook may fail without one success.
PATIENCE = timedelta(days=1)

# So long the secret before goes on signing.
ROTATION = timedelta(days=1)

# How long deliveries are kept.
KEPT = timedelta(days=30)

# Behind everything else: who waits for a mail does not wait for somebody's server. A retry that
# keeps its place in the queue of its webhook goes before those that wait behind it.
PRIORITY = -10
# Behind all of those: what has failed twice, lest servers that hang keep others waiting.
LAST = -20
TEST = "test"

# Events are followed up by several workers at once. So each also takes along what happened just
# before, in case that another one is not done with it yet: their order is the order of the events.
# No further back than a day, for of what is older deliveries may have been deleted already.
_ENQUEUE = """
WITH written AS (
    INSERT INTO bookings_delivery
        (id, webhook_id, event_id, type, status, next_attempt_at, created_at)
    SELECT
        -- A UUID of version 7, as RFC 9562 makes it: milliseconds, then chance.
        encode(set_bit(set_bit(overlay(
            uuid_send(gen_random_uuid())
            PLACING substring(int8send(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)
                              FROM 3)
            FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid,
        webhook.id, event.id, event.type, 'pending', %(at)s::timestamptz, %(at)s::timestamptz
    FROM bookings_bookingevent AS event
    JOIN bookings_webhook AS webhook
        ON webhook.is_active AND event.type = ANY (webhook.events)
    WHERE event.id BETWEEN %(first)s::bigint - 100 AND %(last)s::bigint
      -- Of a hold that ends nobody has been told that it began.
      AND (event.type NOT IN ('booking.cancelled', 'booking.expired')
           OR event.data->'was'->>'status' IS DISTINCT FROM 'held')
      AND (
        event.id = ANY (%(ids)s::bigint[])
        OR event.at > greatest(webhook.updated_at, %(at)s::timestamptz - interval '1 day')
      )
      AND NOT EXISTS (
        SELECT FROM bookings_delivery AS already
        WHERE already.webhook_id = webhook.id AND already.event_id = event.id
      )
    ORDER BY event.id, webhook.id
    ON CONFLICT DO NOTHING
    RETURNING id, webhook_id, event_id
)
SELECT procrastinate_defer_jobs_v1(array_agg(ROW(
    'default', 'bookings.deliver', %(priority)s::integer, 'webhook-' || webhook_id, NULL,
    jsonb_build_object('delivery_id', id, 'planned', %(planned)s::text), NULL
)::procrastinate_job_to_defer_v1 ORDER BY event_id))
FROM written HAVING count(*) > 0
"""


class WebhookInactive(Conflict):
    """This webhook is switched off: switch it on first."""

    code = "webhook_inactive"


def create_webhook(
    *, url: str, events: Sequence[str], at: datetime, is_active: bool = True
) -> Webhook:
    """Tell `url` of events from now on. The secret is in the webhook that is returned.

    Raises:
        Invalid: the address is malformed or leads to a private one.
    """
    _check(url)
    return Webhook.objects.create(
        url=url,
        events=_in_order(events),
        is_active=is_active,
        secret=_new_secret(),
        created_at=at,
        updated_at=at,
    )


def update_webhook(*, webhook_id: UUID, changes: dict[str, Any], at: datetime) -> Webhook:
    """Change a webhook. One that is switched on again, or moved, begins as if it had never failed.

    Raises:
        Webhook.DoesNotExist: there is no such webhook.
        Invalid: the address is malformed or leads to a private one.
    """
    if "url" in changes:
        _check(changes["url"])
    if "events" in changes:
        changes = {**changes, "events": _in_order(changes["events"])}
    with transaction.atomic():
        webhook = _locked(webhook_id)
        if changes.get("is_active") and not webhook.is_active:
            changes = {**changes, "failing_since": None, "disabled_reason": ""}
        elif changes.get("url", webhook.url) != webhook.url:
            changes = {**changes, "failing_since": None}
        if changes:
            _set(webhook, **changes, updated_at=at)
    return webhook


def delete_webhook(*, webhook_id: UUID) -> None:
    """Delete a webhook and the log of its deliveries.

    Raises:
        Webhook.DoesNotExist: there is no such webhook.
    """
    with transaction.atomic():
        _set(_locked(webhook_id), is_active=False)
    # A busy one's log is long: no lock is held for all of it.
    delete_in_batches(
        Delivery.objects.filter(webhook=webhook_id), by="created_at", skip_locked=False
    )
    Webhook.objects.filter(pk=webhook_id).delete()


def rotate_secret(*, webhook_id: UUID, at: datetime) -> Webhook:
    """Give a webhook another secret; for a day the one before signs as well.

    Raises:
        Webhook.DoesNotExist: there is no such webhook.
    """
    with transaction.atomic():
        webhook = _locked(webhook_id)
        _set(
            webhook,
            secret=_new_secret(),
            previous_secret=webhook.secret,
            previous_secret_expires_at=at + ROTATION,
            updated_at=at,
        )
    return webhook


def send_test(*, webhook_id: UUID, at: datetime) -> Delivery:
    """Send a message of type `test`, which is delivered and retried as any other.

    Raises:
        Webhook.DoesNotExist: there is no such webhook.
        WebhookInactive: it is switched off.
    """
    with transaction.atomic():
        webhook = _locked(webhook_id)
        if not webhook.is_active:
            raise WebhookInactive
        delivery = Delivery.objects.create(
            webhook=webhook, type=TEST, next_attempt_at=at, created_at=at
        )
        _defer(delivery)
    return delivery


def redeliver(*, webhook_id: UUID, delivery_id: UUID, at: datetime) -> Delivery:
    """Send a message again now, under the same id; also one that has arrived, or still waits.

    It is retried as often as is left of its attempts.

    Raises:
        Delivery.DoesNotExist: the webhook has no such delivery.
        WebhookInactive: it is switched off.
    """
    with transaction.atomic():
        delivery = (
            Delivery.objects.select_for_update(of=("self",), no_key=True)
            .select_related("webhook")
            .get(pk=delivery_id, webhook_id=webhook_id)
        )
        if not delivery.webhook.is_active:
            raise WebhookInactive
        _set(delivery, status=Delivery.Status.PENDING, next_attempt_at=at)
        _defer(delivery)
    return delivery


def enqueue(event_ids: Sequence[int], *, at: datetime) -> None:
    """Make the deliveries of some events, to all who asked for them, and their jobs.

    In the caller's transaction, and in one statement. What has been enqueued is not enqueued again.
    """
    if not event_ids:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            _ENQUEUE,
            {
                "ids": [*event_ids],
                "first": min(event_ids),
                "last": max(event_ids),
                "at": at,
                "planned": at.isoformat(),
                "priority": PRIORITY,
            },
        )


def deliver(*, delivery_id: UUID, planned: datetime, at: datetime) -> None:
    """Try to deliver a message, write down what came of it, and plan what follows.

    Args:
        planned: for when this attempt was planned; none is made if it is not what is waited for.
    """
    delivery = (
        Delivery.objects.select_related("webhook", "event")
        .filter(pk=delivery_id, status=Delivery.Status.PENDING, next_attempt_at=planned)
        .first()
    )
    if delivery is None:
        return
    if not delivery.webhook.is_active:
        Delivery.objects.filter(pk=delivery_id, next_attempt_at=planned).update(
            status=Delivery.Status.FAILED, next_attempt_at=None
        )
        return
    # Here, for httpx is 14 MiB, of which the web needs none until somebody makes a webhook.
    from bookit import outbound

    content = _content(delivery)
    answer = outbound.post(
        delivery.webhook.url, content=content, headers=_headers(delivery, content, at)
    )
    with transaction.atomic():
        _record(delivery_id, planned, answer, at)


def prune_deliveries(*, at: datetime) -> int:
    """Delete the deliveries of more than 30 days ago; return how many there were."""
    return delete_in_batches(Delivery.objects.filter(created_at__lt=at - KEPT), by="created_at")


def _record(delivery_id: UUID, planned: datetime, answer: "Answer", at: datetime) -> None:
    """Write down an attempt, and what becomes of its delivery and its webhook."""
    delivery = Delivery.objects.select_for_update(no_key=True).filter(pk=delivery_id).first()
    if delivery is None:  # It was deleted meanwhile.
        return
    Attempt.objects.create(
        delivery=delivery,
        at=at,
        duration_ms=answer.duration_ms,
        status_code=answer.status,
        error=answer.error[:300],
        response=answer.text,
    )
    if answer.status is not None and 200 <= answer.status < 300:
        _set(delivery, status=Delivery.Status.DELIVERED, next_attempt_at=None)
        Webhook.objects.filter(pk=delivery.webhook_id, failing_since__isnull=False).update(
            failing_since=None
        )
        return
    webhook = _locked(delivery.webhook_id)
    failures = delivery.attempts.count()
    was_failing = webhook.failing_since is not None
    # Of one that is sent once more by hand nothing follows: it says too little of the webhook.
    if not was_failing and failures <= len(PAUSES):
        _set(webhook, failing_since=at)
    if answer.status == 410:
        _switch_off(webhook, "It answered 410 Gone: nobody wants to be told.", at)
    elif webhook.failing_since and at - webhook.failing_since >= PATIENCE:
        _switch_off(webhook, "For a day no attempt has succeeded.", at)
    if delivery.next_attempt_at != planned:  # Another job of this attempt was first.
        return
    if not webhook.is_active or failures > len(PAUSES):
        _set(delivery, status=Delivery.Status.FAILED, next_attempt_at=None)
        return
    pause = PAUSES[failures - 1] * random.uniform(1, 1 + JITTER)  # noqa: S311 - no secret
    asked = min(_asked_for(answer.retry_after, at), LONGEST_PAUSE)
    _set(delivery, next_attempt_at=at + max(pause, asked))
    # Others wait for one quick retry, and for none while the webhook fails anyway.
    keeps_place = failures == 1 and not was_failing and asked <= pause
    if keeps_place:
        _defer(delivery, lock=f"webhook-{webhook.pk}", priority=PRIORITY + 1)
    else:
        _defer(delivery, priority=LAST)


def _defer(delivery: Delivery, *, lock: str | None = None, priority: int = PRIORITY) -> None:
    """Enqueue the attempt that a delivery waits for."""
    planned = delivery.next_attempt_at
    assert planned is not None  # noqa: S101 - it waits for one
    app.configure_task("bookings.deliver", lock=lock, priority=priority, schedule_at=planned).defer(
        delivery_id=str(delivery.pk), planned=planned.isoformat()
    )


def _content(delivery: Delivery) -> bytes:
    """Return the message, the same at each attempt but for what a booking's people may change."""
    if delivery.event is None:
        return dumps({"type": TEST, "timestamp": delivery.created_at, "data": {}})
    [payload] = payloads([delivery.event])
    return dumps(payload)


def _headers(delivery: Delivery, content: bytes, at: datetime) -> dict[str, str]:
    """Return the headers of a message, signed with each secret that is valid."""
    webhook = delivery.webhook
    valid = [webhook.secret]
    if webhook.previous_secret_expires_at and webhook.previous_secret_expires_at > at:
        valid.append(webhook.previous_secret)
    return {
        "Content-Type": "application/json",
        "webhook-id": str(delivery.pk),
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(
            standardwebhooks.Webhook(secret).sign(str(delivery.pk), at, content.decode())
            for secret in valid
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
        _set(webhook, is_active=False, disabled_reason=reason, updated_at=at)


def _locked(webhook_id: UUID) -> Webhook:
    return Webhook.objects.select_for_update(no_key=True).get(pk=webhook_id)


def _set(row: Webhook | Delivery, **values: Any) -> None:
    for name, value in values.items():
        setattr(row, name, value)
    row.save(update_fields=[*values])


def _check(url: str) -> None:
    from bookit import outbound  # As in `deliver`.

    try:
        outbound.check(url)
    except outbound.Refused as refused:
        raise Invalid(errors={"url": [str(refused)]}) from None


def _in_order(events: Sequence[str]) -> list[str]:
    return [str(known) for known in TOLD if known in events]


def _new_secret() -> str:
    return "whsec_" + b64encode(secrets.token_bytes(32)).decode()
