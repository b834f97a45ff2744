"""Webhooks: URLs to which events are sent.

An event becomes one delivery for each webhook that subscribed to the type of the event. A delivery
is a message and the results of the attempts to send it. Deliveries wait in their table, and one job
per webhook sends the deliveries that are due; see `bookings.webhooks.deliveries`.
"""

import secrets
from base64 import b64encode
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Exists, OuterRef, TextField, Value
from django.db.models.functions import Cast, Concat
from procrastinate.contrib.django.models import ProcrastinateJob
from psycopg.rows import dict_row

from accounts.extensions import ON_NEW_ADMIN
from accounts.models import User
from bookings.events import REPORTED_TYPES
from bookings.holds import announced_sql
from bookings.models import BookingEvent
from bookings.webhooks.models import Attempt, Delivery, Webhook
from bookit.database.batches import delete_in_batches
from bookit.database.retries import retried
from bookit.database.rows import fetch
from bookit.errors import Conflict, Invalid
from bookit.jobs.queues import EARLIER_TIME

# How long previous secrets are used in addition to a new one, and how many of them.
ROTATION = timedelta(days=1)
MAX_PREVIOUS = 2
# The first letters of a secret, as Standard Webhooks specifies.
PREFIX = "whsec_"

# How long deliveries are kept.
KEPT = timedelta(days=30)

TEST = "test"

# ENQUEUE reads at most `MAX_JOBS` waiting and running jobs, and as many from the outbox. It adds at
# most `MAX_EARLIER` of their events. Workers usually run far fewer jobs at the same time:
# WORKER_CONCURRENCY (4 by default) for each worker. A job usually has at most 500 events
# (`bookings.followup.MAX_EVENTS`); a job with more is split when it runs. Events that these limits
# leave out can be sent out of order.
MAX_JOBS, MAX_EARLIER = 200, 2000

# Writes the deliveries of events to the webhooks that subscribed to them.
#
# Deliveries are sent in the order of events, but several workers follow up events at the same time.
# So each worker also writes the deliveries of earlier events, if the jobs that follow these events
# up have not ended yet, or are still in the outbox of a cluster. Other earlier events already have
# their deliveries, or they are not followed up, for example because an import has written them.
#
# Parameters: webhooks uuid[], ids uuid[] (the events), last uuid (the highest of ids), most_jobs
#   bigint (how many jobs to read from each of the two tables), most_earlier bigint (how many
#   earlier events to add; the latest are added), at timestamptz (now).
# Columns: webhook_id uuid, of each webhook that has new deliveries.
# Invariant: delivery_once allows one delivery of an event to a webhook.
ENQUEUE = f"""
WITH job AS MATERIALIZED (
    (SELECT args FROM procrastinate_jobs
    WHERE queue_name = 'default' AND task_name = 'bookings.follow_up'
      AND status IN ('todo', 'doing')
    ORDER BY id LIMIT %(most_jobs)s)
    UNION ALL
    (SELECT args FROM bookit_outbox WHERE task = 'bookings.follow_up'
    ORDER BY id LIMIT %(most_jobs)s)
), earlier AS MATERIALIZED (
    SELECT text::uuid AS id FROM (
        SELECT DISTINCT (event_id #>> '{{}}') COLLATE "C" AS text
        FROM job, jsonb_path_query(job.args, '$.event_ids[*]') AS event_id
    ) AS named
    WHERE text ~ '^[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$'
      AND text < %(last)s::uuid::text
    ORDER BY text DESC LIMIT %(most_earlier)s
), announced AS MATERIALIZED (
    SELECT event.id, event.calendar_id, event.type FROM bookings_bookingevent AS event
    WHERE event.id = ANY (%(ids)s::uuid[] || ARRAY(SELECT id FROM earlier))
      AND {announced_sql("event")}
), written AS (
    INSERT INTO bookings_delivery
        (id, webhook_id, calendar_id, event_id, type, status, next_attempt_at, created_at)
    SELECT uuid7(), webhook.id, event.calendar_id, event.id, event.type, 'pending',
        %(at)s::timestamptz, %(at)s::timestamptz
    FROM announced AS event
    JOIN bookings_webhook AS webhook
        ON webhook.id = ANY (%(webhooks)s::uuid[]) AND event.type = ANY (webhook.events)
        AND (
            webhook.since->>event.type IS NULL OR event.id > (webhook.since->>event.type)::uuid
        )
    WHERE NOT EXISTS (
        SELECT 1 FROM bookings_delivery AS already
        WHERE already.webhook_id = webhook.id AND already.event_id = event.id
    )
    ORDER BY event.id, webhook.id
    ON CONFLICT DO NOTHING
    RETURNING webhook_id
)
SELECT DISTINCT webhook_id FROM written
"""  # noqa: S608 - only our own SQL condition is interpolated, no values

# Enqueues one job per webhook, to send the messages that are due. If a webhook already has a
# waiting job, that job runs at the earlier of its own time and the new time.
#
# Parameters: webhooks uuid[], at timestamptz (when to run; null means immediately).
# Columns: none.
# Invariant: the queueing lock allows one waiting job per webhook. A waiting job is updated even if
#   its time stays the same. The update locks the job, so that no worker starts it before the
#   caller's transaction has committed the deliveries that the job has to send.
WAKE = f"""
INSERT INTO procrastinate_jobs
    (queue_name, task_name, priority, lock, queueing_lock, args, scheduled_at)
SELECT 'webhooks', 'bookings.deliver', 0, 'webhook-' || id, 'webhook-' || id,
    jsonb_build_object('webhook_id', id), %(at)s::timestamptz
FROM unnest(%(webhooks)s::uuid[]) AS id ORDER BY id
ON CONFLICT (queueing_lock) WHERE status = 'todo' DO UPDATE SET
    scheduled_at = {EARLIER_TIME}
"""  # noqa: S608 - only our own SQL is interpolated, no values

# Makes an id from PostgreSQL's clock, as events have. It is higher than the ids of all events that
# were written before, even in open transactions, and lower than the ids of all later events.
#
# Parameters: none.
# Columns: id uuid.
THIS_MOMENT = "SELECT uuid7() AS id"

# The values that reset the failures of a webhook.
_NO_FAILURES = {"failing_since": None, "paused_until": None}


class WebhookInactive(Conflict):
    """This webhook is switched off. Switch it on first."""

    code = "webhook_inactive"


@retried
def create_webhook(
    *, actor: User, url: str, events: Sequence[str], at: datetime, is_active: bool = True
) -> Webhook:
    """Create a webhook. While it is on and `actor` is an admin, new events are sent to `url`.

    The webhook that is returned contains the secret.

    Raises:
        Invalid: the URL is malformed, or leads to an IP address that is not public.
    """
    _check(url)
    types = _in_order(events)
    return Webhook.objects.create(
        url=url,
        owner=actor,
        events=types,
        since=_from_now(types),
        is_active=is_active,
        secret=_new_secret(),
        created_at=at,
        updated_at=at,
    )


@retried
def update_webhook(
    *, webhook_id: UUID, actor: User, changes: dict[str, Any], at: datetime
) -> Webhook:
    """Change a webhook. If it is switched on or gets another URL, its failures are reset.

    The admin who switches a webhook on becomes its owner. Events that happened while the webhook
    was off are not sent. If the change adds types of events, earlier events of these types are not
    sent either.

    Raises:
        Webhook.DoesNotExist: the webhook does not exist.
        Invalid: the URL is malformed, or leads to an IP address that is not public.
    """
    if "url" in changes:
        _check(changes["url"])
    with transaction.atomic():
        webhook = _locked_webhook(webhook_id)
        events = webhook.events
        if "events" in changes:
            events = _in_order(changes["events"])
            known = {kind: webhook.since.get(kind) for kind in webhook.events if kind in events}
            changes = {**changes, "events": events, "since": _from_now(events) | known}
        if changes.get("is_active") and not is_delivering(webhook_id=webhook_id):
            restart = {"owner": actor, "since": _from_now(events), "disabled_reason": ""}
            changes = {**changes, **restart, **_NO_FAILURES}
        elif changes.get("url", webhook.url) != webhook.url:
            changes = {**changes, **_NO_FAILURES}
        if changes:
            _set(webhook, **changes, updated_at=at)
            # The job sends the messages that waited for the end of a pause. If the webhook is off,
            # the job marks all pending messages as failed.
            wake(webhook_ids=[webhook_id])
    return webhook


@retried
def delete_webhook(*, webhook_id: UUID) -> None:
    """Delete a webhook and the log of its deliveries.

    Raises:
        Webhook.DoesNotExist: the webhook does not exist.
    """
    with transaction.atomic():
        # A webhook that is off gets no new deliveries while the old ones are deleted.
        _set(_locked_webhook(webhook_id), is_active=False)
    # The log of a busy webhook is long, so it is deleted in batches that hold no lock for long.
    delete_in_batches(
        Delivery.objects.filter(webhook=webhook_id), by="created_at", skip_locked=False
    )
    Webhook.objects.filter(pk=webhook_id).delete()


@retried
def rotate_secret(*, webhook_id: UUID, actor: User, at: datetime) -> Webhook:
    """Give a webhook a new secret, and make `actor` its owner.

    For a day, messages are also signed with the previous secret, and with the one before if that is
    still in use, in case the response that contained the previous secret was lost. If the webhook
    is on, but its owner is no longer an admin, it receives events again from now on.

    Raises:
        Webhook.DoesNotExist: the webhook does not exist.
    """
    with transaction.atomic():
        webhook = _locked_webhook(webhook_id)
        changes: dict[str, Any] = {}
        if webhook.is_active and not is_delivering(webhook_id=webhook_id):
            changes = {"since": _from_now(webhook.events), **_NO_FAILURES}
        previous = [webhook.secret, *webhook.previous_secrets(at)][:MAX_PREVIOUS]
        _set(
            webhook,
            **changes,
            owner=actor,
            secret=_new_secret(),
            previous_secret=" ".join(secret.removeprefix(PREFIX) for secret in previous),
            previous_secret_expires_at=at + ROTATION,
            updated_at=at,
        )
    return webhook


@ON_NEW_ADMIN.add("webhooks")
def resume(*, admin: User, at: datetime) -> None:
    """Send events to the webhooks of a user who is an admin again, from now on."""
    webhooks = Webhook.objects.select_for_update(no_key=True).filter(owner=admin, is_active=True)
    for webhook in webhooks.order_by("pk"):
        _set(webhook, since=_from_now(webhook.events), **_NO_FAILURES, updated_at=at)


@retried
def send_test(*, webhook_id: UUID, at: datetime) -> Delivery:
    """Send a message of type `test`. It is delivered and retried like any other message.

    Raises:
        Webhook.DoesNotExist: the webhook does not exist.
        WebhookInactive: the webhook is switched off, or its owner is no longer an admin.
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


@retried
def redeliver(*, webhook_id: UUID, delivery_id: UUID, at: datetime) -> Delivery:
    """Send a message again now, with the same id and regardless of its status.

    Earlier attempts count towards the limit of retries, so a message with many earlier attempts has
    few retries left.

    Raises:
        Delivery.DoesNotExist: the webhook has no delivery with this id.
        WebhookInactive: the webhook is switched off, or its owner is no longer an admin.
    """
    with transaction.atomic():
        delivery = Delivery.objects.select_for_update(no_key=True).get(
            pk=delivery_id, webhook_id=webhook_id
        )
        if not is_delivering(webhook_id=webhook_id):
            raise WebhookInactive
        # If the webhook is paused until the retry of this message, end the pause. If it is paused
        # until the retry of another message, this message waits, too, for a few seconds.
        Webhook.objects.filter(pk=webhook_id, paused_until=delivery.next_attempt_at).update(
            paused_until=None
        )
        _set(delivery, status=Delivery.Status.PENDING, next_attempt_at=at)
        wake(webhook_ids=[webhook_id])
    return delivery


def enqueue(*, event_ids: Sequence[UUID], at: datetime) -> None:
    """Write the deliveries of events to the webhooks that subscribed to them.

    The deliveries are written in the caller's transaction. An event that is enqueued twice is
    delivered once.
    """
    webhooks = [*Webhook.objects.delivering().order_by().values_list("pk", flat=True)]
    if not event_ids or not webhooks:
        return
    rows = fetch(
        ENQUEUE,
        {
            "webhooks": webhooks,
            "ids": [*event_ids],
            "last": max(event_ids),
            "most_jobs": MAX_JOBS,
            "most_earlier": MAX_EARLIER,
            "at": at,
        },
        dict_row,
    )
    wake(webhook_ids=[row["webhook_id"] for row in rows])


def wake(*, webhook_ids: Collection[UUID], at: datetime | None = None) -> None:
    """Enqueue jobs that send the due messages of these webhooks, now or at the time `at`."""
    if webhook_ids:
        with connection.cursor() as cursor:
            cursor.execute(WAKE, {"webhooks": [*webhook_ids], "at": at})


def wake_forgotten() -> None:
    """Wake the webhooks that have pending deliveries, but no job.

    Their job failed, was interrupted or was lost.
    """
    key = Concat(Value("webhook-"), Cast(OuterRef("pk"), TextField()))
    forgotten = Webhook.objects.filter(
        Exists(Delivery.objects.filter(webhook=OuterRef("pk"), status=Delivery.Status.PENDING)),
        ~Exists(ProcrastinateJob.objects.filter(queueing_lock=key, status="todo")),
        ~Exists(ProcrastinateJob.objects.filter(lock=key, status="doing")),
    )
    wake(webhook_ids=[*forgotten.values_list("pk", flat=True)])


def is_delivering(*, webhook_id: UUID) -> bool:
    """Return whether events are sent to a webhook; see `WebhookQuerySet.delivering`."""
    return Webhook.objects.delivering().filter(pk=webhook_id).exists()


def forget_responses(*, events: Iterable[BookingEvent]) -> None:
    """For each deletion in `events`, erase the responses to messages about the deleted booking.

    A response can contain personal data. Once the booking is deleted, nobody knows whose data it
    is. A response that arrives later is not stored; see `bookings.webhooks.deliveries`.
    """
    for event in events:
        if event.type == BookingEvent.Type.DELETED:
            with transaction.atomic():
                # The code that records a response locks the delivery first. So either the response
                # is visible here, or the deletion of the booking is visible to that code.
                deliveries = Delivery.objects.filter(
                    calendar=event.calendar_id,
                    event__calendar=event.calendar_id,
                    event__booking_id=event.booking_id,
                ).order_by("pk")
                list(deliveries.select_for_update(of=("self",), no_key=True).values_list("pk"))
                Attempt.objects.filter(
                    delivery__calendar=event.calendar_id,
                    delivery__event__calendar=event.calendar_id,
                    delivery__event__booking_id=event.booking_id,
                ).exclude(response="").update(response="")


def prune_deliveries(*, at: datetime) -> int:
    """Delete the deliveries that are more than 30 days old, and return their number."""
    return delete_in_batches(Delivery.objects.filter(created_at__lt=at - KEPT), by="created_at")


def _locked_webhook(webhook_id: UUID) -> Webhook:
    return Webhook.objects.select_for_update(no_key=True).get(pk=webhook_id)


def _set(row: Webhook | Delivery, **values: Any) -> None:
    for name, value in values.items():
        setattr(row, name, value)
    row.save(update_fields=[*values])


def _check(url: str) -> None:
    # Imported here because httpx takes 14 MiB of memory, and web processes need it only to check
    # the URLs of webhooks.
    from bookit import outbound

    try:
        outbound.check(url)
    except outbound.Refused as refused:
        raise Invalid.of("url", str(refused)) from None


def _in_order(events: Sequence[str]) -> list[str]:
    return [str(known) for known in REPORTED_TYPES if known in events]


def _from_now(events: Sequence[str]) -> dict[str, str]:
    """Return a dictionary that maps each type to an id that only later events exceed."""
    [(moment,)] = fetch(THIS_MOMENT, {})
    return dict.fromkeys(events, str(moment))


def _new_secret() -> str:
    return PREFIX + b64encode(secrets.token_bytes(32)).decode()
