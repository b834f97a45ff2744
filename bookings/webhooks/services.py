"""Webhooks: addresses that are sent what happens.

An event becomes a delivery for each webhook that asked for it: a message, with what came of it.
Deliveries wait in their table, and one job for each webhook sends what is due, see `deliveries`.
"""

import secrets
from base64 import b64encode
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Exists, OuterRef, TextField, Value
from django.db.models.functions import Cast, Concat
from procrastinate.contrib.django.models import ProcrastinateJob

from accounts.models import User
from bookings.events import TOLD
from bookings.webhooks.models import Delivery, Webhook
from bookit.database.batches import delete_in_batches
from bookit.errors import Conflict, Invalid

# How long the secret before goes on signing.
ROTATION = timedelta(days=1)

# How long deliveries are kept.
KEPT = timedelta(days=30)

TEST = "test"

# Events are followed up by several workers at once. Each also takes along the events just before
# its own, in case another worker is not done with them: deliveries are sent in the order of events.
# No further back than a day: older deliveries may have been deleted already.
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
        ON webhook.id = ANY (%(webhooks)s::uuid[]) AND event.type = ANY (webhook.events)
        AND event.id > coalesce((webhook.since->>event.type)::bigint, 0)
    WHERE event.id BETWEEN %(first)s::bigint - %(before)s::bigint AND %(last)s::bigint
      -- Nobody was told that a hold began, so nobody is told that it ends.
      AND (event.type NOT IN ('booking.cancelled', 'booking.expired')
           OR event.data->'was'->>'status' IS DISTINCT FROM 'held')
      AND (
        event.id = ANY (%(ids)s::bigint[])
        OR event.at > %(at)s::timestamptz - interval '1 day'
      )
      AND NOT EXISTS (
        SELECT FROM bookings_delivery AS already
        WHERE already.webhook_id = webhook.id AND already.event_id = event.id
      )
    ORDER BY event.id, webhook.id
    ON CONFLICT DO NOTHING
    RETURNING webhook_id
)
SELECT DISTINCT webhook_id FROM written
"""
# Each webhook has one waiting job. It is updated even if nothing changes, which keeps it from being
# begun before the caller's transaction has committed the deliveries that the job is to send.
_WAKE = """
INSERT INTO procrastinate_jobs
    (queue_name, task_name, priority, lock, queueing_lock, args, scheduled_at)
SELECT 'webhooks', 'bookings.deliver', 0, 'webhook-' || id, 'webhook-' || id,
    jsonb_build_object('webhook_id', id), %(at)s::timestamptz
FROM unnest(%(webhooks)s::uuid[]) AS id ORDER BY id
ON CONFLICT (queueing_lock) WHERE status = 'todo' DO UPDATE SET scheduled_at =
    CASE WHEN procrastinate_jobs.scheduled_at > excluded.scheduled_at THEN excluded.scheduled_at
         WHEN excluded.scheduled_at IS NOT NULL THEN procrastinate_jobs.scheduled_at END
"""
_LAST_EVENT = """
SELECT coalesce(pg_sequence_last_value(
    pg_get_serial_sequence('bookings_bookingevent', 'id')::regclass), 0)
"""


# What one begins with again that is switched on or moved.
_NEVER_FAILED = {"failing_since": None, "paused_until": None}


class WebhookInactive(Conflict):
    """This webhook is switched off. Switch it on first."""

    code = "webhook_inactive"


def create_webhook(
    *, actor: User, url: str, events: Sequence[str], at: datetime, is_active: bool = True
) -> Webhook:
    """Send `url` what happens from now on, for as long as `actor` is an admin.

    The secret is in the webhook that is returned.

    Raises:
        Invalid: the address is malformed or leads to a private one.
    """
    _check(url)
    asked = _in_order(events)
    return Webhook.objects.create(
        url=url,
        owner=actor,
        events=asked,
        since=_from_now(asked),
        is_active=is_active,
        secret=_new_secret(),
        created_at=at,
        updated_at=at,
    )


def update_webhook(
    *, webhook_id: UUID, actor: User, changes: dict[str, Any], at: datetime
) -> Webhook:
    """Change a webhook. One that is switched on again, or moved, begins as if it had never failed.

    Whoever switches it on is its owner from then on. It is not sent what happened while it was off,
    nor, of types that are new to it, what happened before.

    Raises:
        Webhook.DoesNotExist: there is no such webhook.
        Invalid: the address is malformed or leads to a private one.
    """
    if "url" in changes:
        _check(changes["url"])
    with transaction.atomic():
        webhook = _locked_webhook(webhook_id)
        events = webhook.events
        if "events" in changes:
            events = _in_order(changes["events"])
            known = {kind: webhook.since.get(kind, 0) for kind in webhook.events if kind in events}
            changes = {**changes, "events": events, "since": _from_now(events) | known}
        if changes.get("is_active") and not is_delivering(webhook_id=webhook_id):
            begins = {"owner": actor, "since": _from_now(events), "disabled_reason": ""}
            changes = {**changes, **begins, **_NEVER_FAILED}
        elif changes.get("url", webhook.url) != webhook.url:
            changes = {**changes, **_NEVER_FAILED}
        if changes:
            _set(webhook, **changes, updated_at=at)
            wake(webhook_ids=[webhook_id])
    return webhook


def delete_webhook(*, webhook_id: UUID) -> None:
    """Delete a webhook and the log of its deliveries.

    Raises:
        Webhook.DoesNotExist: there is no such webhook.
    """
    with transaction.atomic():
        _set(_locked_webhook(webhook_id), is_active=False)
    # A busy one's log is long: no lock is held for all of it.
    delete_in_batches(
        Delivery.objects.filter(webhook=webhook_id), by="created_at", skip_locked=False
    )
    Webhook.objects.filter(pk=webhook_id).delete()


def rotate_secret(*, webhook_id: UUID, actor: User, at: datetime) -> Webhook:
    """Give a webhook another secret, and make `actor` its owner.

    For a day the secret before signs as well.

    Raises:
        Webhook.DoesNotExist: there is no such webhook.
    """
    with transaction.atomic():
        webhook = _locked_webhook(webhook_id)
        _set(
            webhook,
            owner=actor,
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
        WebhookInactive: it is switched off, or its owner is no longer an admin.
    """
    with transaction.atomic():
        webhook = _locked_webhook(webhook_id)
        if not is_delivering(webhook_id=webhook_id):
            raise WebhookInactive
        delivery = Delivery.objects.create(
            webhook=webhook, type=TEST, next_attempt_at=at, created_at=at
        )
        wake(webhook_ids=[webhook_id])
    return delivery


def redeliver(*, webhook_id: UUID, delivery_id: UUID, at: datetime) -> Delivery:
    """Send a message again now, under the same id; also one that has arrived, or still waits.

    It is retried as often as is left of its attempts.

    Raises:
        Delivery.DoesNotExist: the webhook has no such delivery.
        WebhookInactive: it is switched off, or its owner is no longer an admin.
    """
    with transaction.atomic():
        delivery = (
            Delivery.objects.select_for_update(of=("self",), no_key=True)
            .select_related("webhook")
            .get(pk=delivery_id, webhook_id=webhook_id)
        )
        if not is_delivering(webhook_id=webhook_id):
            raise WebhookInactive
        # Neither does it wait for its own retry.
        Webhook.objects.filter(pk=webhook_id, paused_until=delivery.next_attempt_at).update(
            paused_until=None
        )
        _set(delivery, status=Delivery.Status.PENDING, next_attempt_at=at)
        wake(webhook_ids=[webhook_id])
    return delivery


def enqueue(*, event_ids: Sequence[int], at: datetime) -> None:
    """Make the deliveries of some events, to all who asked for them, in the caller's transaction.

    What has been enqueued is not enqueued again.
    """
    webhooks = [*Webhook.objects.delivering().order_by().values_list("pk", flat=True)]
    if not event_ids or not webhooks:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            _ENQUEUE,
            {
                "webhooks": webhooks,
                "ids": [*event_ids],
                "first": min(event_ids),
                "last": max(event_ids),
                # As many as several workers may have in hand.
                "before": max(100, 4 * len(event_ids)),
                "at": at,
            },
        )
        woken = [webhook_id for (webhook_id,) in cursor.fetchall()]
    wake(webhook_ids=woken)


def wake(*, webhook_ids: Collection[UUID], at: datetime | None = None) -> None:
    """Let a worker send what is due to some webhooks, now or `at` a time."""
    if webhook_ids:
        with connection.cursor() as cursor:
            cursor.execute(_WAKE, {"webhooks": [*webhook_ids], "at": at})


def wake_forgotten() -> None:
    """Wake the webhooks whose deliveries wait without a job, because one failed or was cut off."""
    key = Concat(Value("webhook-"), Cast(OuterRef("pk"), TextField()))
    forgotten = Webhook.objects.filter(
        Exists(Delivery.objects.filter(webhook=OuterRef("pk"), status=Delivery.Status.PENDING)),
        ~Exists(ProcrastinateJob.objects.filter(queueing_lock=key, status="todo")),
        ~Exists(ProcrastinateJob.objects.filter(lock=key, status="doing")),
    )
    wake(webhook_ids=[*forgotten.values_list("pk", flat=True)])


def is_delivering(*, webhook_id: UUID) -> bool:
    """Return whether a webhook is sent events, see `WebhookQuerySet.delivering`."""
    return Webhook.objects.delivering().filter(pk=webhook_id).exists()


def prune_deliveries(*, at: datetime) -> int:
    """Delete the deliveries of more than 30 days ago; return how many there were."""
    return delete_in_batches(Delivery.objects.filter(created_at__lt=at - KEPT), by="created_at")


def _locked_webhook(webhook_id: UUID) -> Webhook:
    return Webhook.objects.select_for_update(no_key=True).get(pk=webhook_id)


def _set(row: Webhook | Delivery, **values: Any) -> None:
    for name, value in values.items():
        setattr(row, name, value)
    row.save(update_fields=[*values])


def _check(url: str) -> None:
    # Here: httpx takes 14 MiB, which the web does not need until somebody makes a webhook.
    from bookit import outbound

    try:
        outbound.check(url)
    except outbound.Refused as refused:
        raise Invalid.of("url", str(refused)) from None


def _in_order(events: Sequence[str]) -> list[str]:
    return [str(known) for known in TOLD if known in events]


def _from_now(events: Sequence[str]) -> dict[str, int]:
    """Return for each type the last event that there is."""
    with connection.cursor() as cursor:
        cursor.execute(_LAST_EVENT)
        (last,) = cursor.fetchone()
    return dict.fromkeys(events, last)


def _new_secret() -> str:
    return "whsec_" + b64encode(secrets.token_bytes(32)).decode()
