"""Webhooks: signed messages are sent to subscribers in order, and are retried if they fail."""

import time
from datetime import timedelta
from email.utils import format_datetime

import pytest
import standardwebhooks
import time_machine
from asgiref.sync import async_to_sync
from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.db import connection, transaction
from django.urls import reverse
from django.utils import timezone
from procrastinate.contrib.django import app
from procrastinate.contrib.django.models import ProcrastinateJob

from accounts.services import update_user
from accounts.tests.factories import AdminFactory
from bookings import events, services
from bookings.events import REPORTED_TYPES
from bookings.mails.occasions import occasions
from bookings.models import Booking, BookingEvent
from bookings.tests.factories import (
    TUESDAY,
    AttemptFactory,
    BookingFactory,
    DeliveryFactory,
    WebhookFactory,
)
from bookings.tests.jobs import follow_events_up, relay_jobs
from bookings.webhooks import deliveries, tasks
from bookings.webhooks import services as webhooks
from bookings.webhooks.models import Attempt, Delivery, Webhook
from bookings.webhooks.viewsets import EventViewSet
from bookit.tests.crowd import at_once, run, tally, until_waiting
from bookit.tests.expect import problem
from bookit.tests.receiver import answer, receiver
from catalog.tests.factories import ServiceFactory

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
# The secret of the webhooks that `WebhookFactory` creates.
SECRET = "whsec_Tk90IGEgc2VjcmV0LCBidXQgYW4gZXhhbXBsZSE="


@pytest.fixture(autouse=True)
def allow_loopback_addresses(settings):
    """Allow loopback addresses, because the receivers of these tests listen on them."""
    settings.WEBHOOK_ALLOW_PRIVATE = True


@pytest.fixture
def admin(api):
    return api.as_(AdminFactory())


def happen(kind=BookingEvent.Type.CONFIRMED, booking=None, at=None):
    """Write an event of a booking, and return it."""
    return events.record(booking or BookingFactory(), kind, actor=None, at=at or timezone.now())


def follow_up(*happened, at=None):
    follow_events_up([event.pk for event in happened], at=at or timezone.now())


def send(webhook, at=None):
    """Send the due messages of a webhook, as its job does when a worker runs it."""
    run(f"DELETE FROM procrastinate_jobs WHERE lock = 'webhook-{webhook.pk}'")
    now = (lambda: at) if at else timezone.now
    async_to_sync(deliveries.deliver)(webhook_id=webhook.pk, now=now)


def send_all(at=None):
    """Send the due messages of all webhooks."""
    for webhook in Webhook.objects.all():
        send(webhook, at)


def verified(message, secret=SECRET):
    """Verify a message as Standard Webhooks specifies, and return its content."""
    return standardwebhooks.Webhook(secret).verify(message.body, message.headers)


def jobs():
    """Return the waiting jobs of webhooks, oldest first."""
    return [
        *ProcrastinateJob.objects.filter(task_name="bookings.deliver", status="todo").order_by("id")
    ]


def do(job):
    """Run a job as a worker does. While it runs, the webhook's next job can be enqueued."""
    run(f"UPDATE procrastinate_jobs SET status = 'succeeded' WHERE id = {job.pk}")
    async_to_sync(tasks.deliver.func)(**job.args)


def responses(webhook, booking_id):
    """Return the stored responses of a webhook to messages about a booking."""
    about = Attempt.objects.filter(delivery__webhook=webhook, delivery__event__booking=booking_id)
    return {*about.values_list("response", flat=True)}


def enqueued():
    """Return the ids of the events that have deliveries, in the order of the events."""
    return [each.event_id for each in Delivery.objects.order_by("event")]


def order(subscriber, happened):
    """Return the positions in `happened` of the events that arrived, in the order of arrival."""
    numbers = {str(each.pk): number for number, each in enumerate(happened)}
    event_ids = {str(each.pk): str(each.event_id) for each in Delivery.objects.all()}
    return [numbers[event_ids[each.headers["webhook-id"]]] for each in subscriber.messages]


def log(admin, webhook):
    return admin.get(f"/webhooks/{webhook.pk}/deliveries").json()["results"]


# --- which events are sent ----------------------------------------------------------------------


def test_a_subscriber_receives_a_booking_as_the_api_shows_it(admin):
    with receiver() as subscriber:
        made = admin.post(
            "/webhooks", {"url": subscriber.url, "events": ["booking.confirmed"]}
        ).json()
        booking = BookingFactory(notes="By the window")
        admin.patch(f"/bookings/{booking.pk}", {"status": "confirmed"})
        follow_up(*BookingEvent.objects.all())
        send_all()
    [message] = subscriber.messages
    content = verified(message, made["secret"])
    shown = admin.get(f"/bookings/{booking.pk}").json()
    assert content == {
        "type": "booking.confirmed",
        "timestamp": shown["updated_at"],
        "data": shown,
    }
    assert message.headers["Content-Type"] == "application/json"
    [delivery] = log(admin, Webhook.objects.get())
    assert message.headers["webhook-id"] == delivery["id"]
    assert delivery["status"] == "delivered"
    assert delivery["event_id"] == str(BookingEvent.objects.get().pk)
    assert [each["status_code"] for each in delivery["attempts"]] == [204]


@pytest.mark.parametrize("kind", ["booking.cancelled", "booking.expired"])
def test_the_end_of_a_hold_is_not_sent(kind):
    booking = BookingFactory()
    for was in ("held", "pending"):
        events.record(
            booking, BookingEvent.Type(kind), actor=None, at=timezone.now(), was={"status": was}
        )
    WebhookFactory()
    follow_up(*BookingEvent.objects.all())
    assert [each.event.data["was"] for each in Delivery.objects.all()] == [{"status": "pending"}]


def test_webhooks_and_emails_announce_the_events_that_the_event_feed_lists():
    """Try each reported type without old values, and with old values with and without a status."""
    old_values = [None, {"seat": 2}, *({"status": status} for status in Booking.Status)]
    booking, at = BookingFactory(), timezone.now()
    happened = [
        events.record(booking, kind, actor=None, at=at, was=was)
        for kind in REPORTED_TYPES
        for was in old_values
    ]
    ids = [event.pk for event in happened]
    webhook = WebhookFactory(events=[str(kind) for kind in REPORTED_TYPES])
    webhooks.enqueue(event_ids=ids, at=at)

    delivered = {delivery.event_id for delivery in webhook.deliveries.all()}
    listed = {event.pk for event in EventViewSet.queryset}
    mailed = {each.event_id for each in occasions([booking.calendar_id], ids) if each.is_announced}
    ends_of_holds = {
        event.pk
        for event in happened
        if event.type in ("booking.cancelled", "booking.expired")
        and event.data.get("was") == {"status": "held"}
    }
    assert len(ends_of_holds) == 2
    assert delivered == listed == mailed == {*ids} - ends_of_holds


def test_a_message_contains_the_booking_as_it_was_after_the_event():
    booking = BookingFactory(status="pending", price=1500, currency="JPY")
    created = happen(BookingEvent.Type.CREATED, booking)
    services.change_status(
        booking_id=booking.pk, status="cancelled", actor=AdminFactory(), at=timezone.now()
    )
    with receiver() as subscriber:
        WebhookFactory(url=subscriber.url)
        follow_up(created)
        send_all()
    content = verified(subscriber.messages[0])
    assert content["data"]["status"] == "pending"
    assert content["data"]["updated_at"] == content["timestamp"]
    assert content["data"]["price"] == "1500"


def test_a_message_about_a_deleted_booking_contains_its_id_and_its_state():
    booking = BookingFactory(notes="private")
    event = happen(BookingEvent.Type.CANCELLED, booking)
    pk = booking.pk
    booking.delete()
    with receiver() as subscriber:
        WebhookFactory(url=subscriber.url)
        follow_up(event)
        send_all()
    assert verified(subscriber.messages[0])["data"] == {
        "id": str(pk),
        "status": "pending",
        "start_time": "2999-01-01T10:00:00Z",
        "end_time": "2999-01-01T11:00:00Z",
        "seat": 1,
        "slot_id": None,
        "hold_expires_at": None,
    }


@pytest.mark.parametrize("status", [200, 500])
def test_responses_to_messages_about_a_deleted_booking_are_not_kept(status):
    """Messages are sent to one webhook before the deletion, and to the other webhook after it."""
    kept, deleted = BookingFactory.create_batch(2)
    pk = deleted.pk
    happened = [happen(booking=booking) for booking in (kept, deleted)]
    with receiver(answer(status, b"Hi Ana!")) as subscriber:
        early, late = (WebhookFactory(url=subscriber.url) for _ in range(2))
        follow_up(*happened)
        # If the first message fails, the second is sent only after the retry of the first.
        for minutes in (0, 10):
            send(early, timezone.now() + timedelta(minutes=minutes))
        assert responses(early, pk) == {"Hi Ana!"}
        services.delete_booking(booking_id=pk, actor=AdminFactory(), at=timezone.now())
        follow_up(*BookingEvent.objects.filter(type="booking.deleted"))
        for minutes in (20, 30):
            send(late, timezone.now() + timedelta(minutes=minutes))
    for webhook in (early, late):
        assert responses(webhook, kept.pk) == {"Hi Ana!"}
        assert responses(webhook, pk) == {""}


def test_webhooks_receive_only_subscribed_types_and_nothing_while_they_are_off():
    WebhookFactory(events=["booking.cancelled"])
    WebhookFactory(is_active=False)
    subscribed = WebhookFactory(events=["booking.cancelled", "booking.created"])
    happened = [
        happen(kind)
        for kind in (
            BookingEvent.Type.HELD,
            BookingEvent.Type.CREATED,
            BookingEvent.Type.DELETED,
            BookingEvent.Type.REMINDED,
        )
    ]
    follow_up(*happened)
    [delivery] = Delivery.objects.all()
    assert (delivery.webhook, delivery.type) == (subscribed, "booking.created")


def test_enqueueing_thirty_events_for_three_webhooks_takes_three_queries(
    django_assert_num_queries,
):
    booking = BookingFactory()
    happened = [happen(booking=booking) for _ in range(30)]
    for _ in range(3):
        WebhookFactory()
    with django_assert_num_queries(3):
        webhooks.enqueue(event_ids=[event.pk for event in happened], at=timezone.now())
    assert Delivery.objects.count() == 90
    assert len(jobs()) == 3
    assert {delivery.pk.version for delivery in Delivery.objects.all()} == {7}


def test_an_event_that_is_followed_up_twice_is_delivered_once():
    WebhookFactory()
    event = happen()
    follow_up(event)
    follow_up(event)
    assert Delivery.objects.count() == len(jobs()) == 1


def test_events_arrive_in_order_even_if_the_later_event_is_followed_up_first():
    with receiver() as subscriber:
        WebhookFactory(url=subscriber.url)
        first, second = happen(), happen()
        relay_jobs()
        follow_up(second)
        assert Delivery.objects.count() == 2
        follow_up(first)
        send_all()
        assert order(subscriber, [first, second]) == [0, 1]


def test_an_event_that_is_followed_up_before_a_large_job_arrives_after_all_events_of_that_job():
    WebhookFactory()
    booking = BookingFactory()
    happened = [happen(booking=booking) for _ in range(150)]
    relay_jobs()
    run("DELETE FROM procrastinate_jobs")
    app.configure_task("bookings.follow_up").defer(
        calendar_ids=[str(booking.calendar_id)],
        # Texts that are not ids are ignored, so that a wrong job does not stop all webhooks.
        event_ids=["not an id", *(str(event.pk) for event in happened)],
    )
    last = happen(booking=booking)
    follow_up(last)
    assert enqueued() == [event.pk for event in [*happened, last]]


def test_events_that_notify_nobody_are_not_delivered_with_later_events():
    WebhookFactory()
    events.suppress_follow_up()
    happen()
    run("SET LOCAL bookit.follow_up = on")
    event = happen()
    follow_up(event)
    assert [each.event_id for each in Delivery.objects.all()] == [event.pk]


def test_events_whose_delivery_was_pruned_are_not_delivered_again():
    WebhookFactory()
    follow_up(happen(), at=timezone.now() - 31 * DAY)
    relay_jobs()
    run("DELETE FROM procrastinate_jobs")
    assert webhooks.prune_deliveries(at=timezone.now()) == 1
    event = happen()
    follow_up(event)
    assert [each.event_id for each in Delivery.objects.all()] == [event.pk]


def test_a_webhook_has_one_job_for_all_its_pending_deliveries():
    first, second = WebhookFactory(), WebhookFactory()
    follow_up(happen())
    follow_up(happen(), happen())
    locks = [f"webhook-{first.pk}", f"webhook-{second.pk}"]
    assert [job.lock for job in jobs()] == [job.queueing_lock for job in jobs()] == locks
    assert {job.queue_name for job in jobs()} == {"webhooks"}
    assert Delivery.objects.count() == 6


# --- events before the subscription are not sent ------------------------------------------------


def test_events_before_the_creation_of_a_webhook_are_not_sent_even_if_followed_up_later(admin):
    before = happen()
    admin.post("/webhooks", {"url": "https://8.8.8.8", "events": ["booking.confirmed"]})
    after = happen()
    follow_up(before)
    follow_up(after)
    assert enqueued() == [after.pk]


@pytest.mark.parametrize("skew", [-HOUR, HOUR])
def test_only_events_after_the_creation_are_sent_whatever_the_clocks_of_the_hosts_say(admin, skew):
    """The clocks of the host that creates the webhook and of the host that books can differ."""
    before = happen(at=timezone.now() - skew)
    admin.post("/webhooks", {"url": "https://8.8.8.8", "events": ["booking.confirmed"]})
    after = happen(at=timezone.now() + skew)
    follow_up(before, after)
    assert enqueued() == [after.pk]


@pytest.mark.django_db(transaction=True)
def test_an_event_is_not_sent_if_it_is_written_before_a_webhook_and_committed_after_it(admin):
    booking = BookingFactory()
    transaction.set_autocommit(False)
    try:
        before = happen(booking=booking)
        body = {"url": "https://8.8.8.8", "events": ["booking.confirmed"]}
        [outcome] = at_once([lambda: admin.post("/webhooks", body).status_code])
        assert outcome.value == 201
        transaction.commit()
    finally:
        transaction.set_autocommit(True)
    follow_up(before)
    assert enqueued() == []


def test_events_that_happen_while_a_webhook_is_off_are_not_sent(admin):
    webhook = WebhookFactory()
    admin.patch(f"/webhooks/{webhook.pk}", {"is_active": False})
    before = happen()
    admin.patch(f"/webhooks/{webhook.pk}", {"is_active": True})
    after = happen()
    follow_up(before, after)
    assert enqueued() == [after.pk]


def test_a_webhook_receives_no_earlier_events_of_a_type_that_is_added(admin):
    webhook = WebhookFactory(events=["booking.confirmed"])
    known, before = happen(), happen(BookingEvent.Type.CANCELLED)
    admin.patch(f"/webhooks/{webhook.pk}", {"events": ["booking.cancelled", "booking.confirmed"]})
    after = happen(BookingEvent.Type.CANCELLED)
    follow_up(known, before, after)
    assert enqueued() == [known.pk, after.pk], (
        "events of a type that the webhook already had are still sent"
    )


def test_a_webhook_receives_no_earlier_events_of_a_type_that_is_removed_and_added_again(admin):
    webhook = WebhookFactory(events=["booking.confirmed", "booking.cancelled"])
    before = []
    for types in (["booking.cancelled"], ["booking.confirmed"]):
        before.append(happen())
        admin.patch(f"/webhooks/{webhook.pk}", {"events": types})
    after = happen()
    follow_up(*before, after)
    assert enqueued() == [after.pk]


# --- owners -------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"role": "user"}, {"role": "provider"}, {"is_active": False}])
def test_nothing_is_sent_once_the_owner_is_no_longer_an_admin(admin, change):
    with receiver() as subscriber:
        webhook = WebhookFactory(url=subscriber.url)
        waiting = happen()
        follow_up(waiting)
        type(webhook.owner).objects.filter(pk=webhook.owner_id).update(**change)
        follow_up(happen())
        send_all()
    assert subscriber.messages == []
    assert enqueued() == [waiting.pk]
    assert log(admin, webhook)[0]["status"] == "failed"
    path = f"/webhooks/{webhook.pk}"
    for shown in (admin.get(path).json(), admin.get("/webhooks").json()["results"][0]):
        assert not shown["is_active"]
        assert "no longer an admin" in shown["disabled_reason"]
    problem(admin.post(f"{path}/test"), 409, "webhook_inactive")


def change_owner(webhook, **changes):
    update_user(user_id=webhook.owner_id, actor=AdminFactory(), changes=changes, at=timezone.now())


@pytest.mark.parametrize(
    ("away", "back"),
    [({"role": "user"}, {"role": "admin"}), ({"is_active": False}, {"is_active": True})],
)
def test_events_that_happen_while_the_owner_is_no_admin_are_not_sent_later(away, back):
    webhook = WebhookFactory(failing_since=timezone.now())
    first = happen()
    follow_up(first)
    change_owner(webhook, **away)
    between = happen()
    follow_up(between)
    change_owner(webhook, **back)
    after = happen()
    follow_up(after)
    assert enqueued() == [first.pk, after.pk]
    webhook.refresh_from_db()
    assert webhook.failing_since is None


def test_a_webhook_misses_no_event_if_its_owner_stays_an_admin():
    webhook = WebhookFactory()
    before = happen()
    change_owner(webhook, name="Helena")
    follow_up(before)
    assert enqueued() == [before.pk]


def test_a_webhook_that_is_off_stays_off_when_its_owner_is_an_admin_again():
    webhook = WebhookFactory(is_active=False)
    for role in ("user", "admin"):
        change_owner(webhook, role=role)
    follow_up(happen())
    assert enqueued() == []


def test_another_admin_resumes_a_webhook_by_switching_it_on(admin):
    with receiver() as subscriber:
        webhook = WebhookFactory(url=subscriber.url, owner=None)
        before = happen()
        back = admin.patch(f"/webhooks/{webhook.pk}", {"is_active": True}).json()
        assert (back["is_active"], back["disabled_reason"]) == (True, "")
        after = happen()
        follow_up(before, after)
        send_all()
        assert order(subscriber, [after]) == [0]
    webhook.refresh_from_db()
    assert back["owner_id"] == str(webhook.owner_id)


def test_another_admin_resumes_a_webhook_by_renewing_its_secret(admin):
    with receiver() as subscriber:
        webhook = WebhookFactory(
            url=subscriber.url, owner=None, failing_since=timezone.now() - 2 * DAY
        )
        before = happen()
        secret = admin.post(f"/webhooks/{webhook.pk}/rotate-secret").json()["secret"]
        after = happen()
        follow_up(before, after)
        send_all()
    [message] = subscriber.messages
    assert verified(message, secret)["data"]["id"] == str(after.booking_id)
    webhook.refresh_from_db()
    assert webhook.failing_since is None


def test_renewing_the_secret_of_a_webhook_that_is_on_misses_no_event(admin):
    with receiver() as subscriber:
        webhook = WebhookFactory(url=subscriber.url)
        before = happen()
        admin.post(f"/webhooks/{webhook.pk}/rotate-secret")
        after = happen()
        follow_up(before, after)
        send_all()
        assert order(subscriber, [before, after]) == [0, 1]


def test_the_admin_who_creates_a_webhook_or_renews_its_secret_owns_it():
    webhook = WebhookFactory()
    before, later = webhook.owner, AdminFactory()
    made = webhooks.create_webhook(
        actor=before, url=webhook.url, events=webhook.events, at=timezone.now()
    )
    assert made.owner == before
    for changes in ({"is_active": True}, {"events": ["booking.created"]}):
        webhooks.update_webhook(webhook_id=made.pk, actor=later, changes=changes, at=timezone.now())
        assert Webhook.objects.get(pk=made.pk).owner == before, (
            "the owner changes only if the webhook was off"
        )
    assert webhooks.rotate_secret(webhook_id=made.pk, actor=later, at=timezone.now()).owner == later


def test_the_admin_site_shows_that_a_webhook_has_no_owner_and_can_switch_it_on(client):
    admin = AdminFactory()
    client.force_login(admin)
    webhook = WebhookFactory(owner=None)
    for path in (
        reverse("admin:bookings_webhook_changelist"),
        reverse("admin:bookings_webhook_change", args=[webhook.pk]),
    ):
        assert "no longer an admin" in client.get(path).content.decode()
    client.post(
        reverse("admin:bookings_webhook_changelist"),
        {"action": "switch_on", "_selected_action": [str(webhook.pk)]},
    )
    webhook.refresh_from_db()
    assert webhook.owner == admin


# --- secrets ------------------------------------------------------------------------------------


def test_the_secret_of_a_webhook_is_not_shown_after_its_creation(admin):
    made = admin.post("/webhooks", {"url": "https://8.8.8.8", "events": ["review.created"]})
    assert made.status_code == 201
    secret = made.json()["secret"]
    assert secret.startswith("whsec_")
    standardwebhooks.Webhook(secret)
    path = f"/webhooks/{made.json()['id']}"
    assert made["Location"].endswith(path)
    for seen in (
        admin.get(path),
        admin.get("/webhooks"),
        admin.patch(path, {"is_active": True}),
        admin.patch(path, {**made.json(), "is_active": True}),
    ):
        assert seen.status_code == 200
        assert b"whsec_" not in seen.content
        assert b"secret" not in seen.content


def test_messages_are_also_signed_with_the_previous_secret_for_a_day(admin):
    with receiver() as subscriber:
        webhook = WebhookFactory(url=subscriber.url)
        response = admin.post(f"/webhooks/{webhook.pk}/rotate-secret")
        assert response.status_code == 200
        new = response.json()["secret"]
        assert new != SECRET
        follow_up(happen())
        send_all()
        [message] = subscriber.messages
        assert len(message.headers["webhook-signature"].split(" ")) == 2
        assert verified(message, new) == verified(message, SECRET)

        with time_machine.travel(timezone.now() + DAY + HOUR, tick=True):
            follow_up(happen())
            send_all()
            message = subscriber.messages[1]
            assert len(message.headers["webhook-signature"].split(" ")) == 1
            assert verified(message, new)
            with pytest.raises(standardwebhooks.WebhookVerificationError):
                verified(message, SECRET)
    assert b"whsec_" not in admin.get(f"/webhooks/{webhook.pk}").content


def test_a_secret_that_is_renewed_twice_in_a_day_is_still_used_for_that_day(admin):
    with receiver() as subscriber:
        webhook = WebhookFactory(url=subscriber.url)
        path = f"/webhooks/{webhook.pk}/rotate-secret"
        # The response to the first request is lost, so the receiver still has the old secret.
        lost, new = (admin.post(path).json()["secret"] for _ in range(2))
        follow_up(happen())
        send_all()
        [message] = subscriber.messages
        for secret in (new, lost, SECRET):
            assert verified(message, secret)

        # Only the two secrets before the present one are kept.
        newest = admin.post(path).json()["secret"]
        follow_up(happen())
        send_all()
        message = subscriber.messages[1]
        for secret in (newest, new, lost):
            assert verified(message, secret)
        assert len(message.headers["webhook-signature"].split(" ")) == 3

        with time_machine.travel(timezone.now() + DAY + HOUR, tick=True):
            at = timezone.now()
            webhooks.rotate_secret(webhook_id=webhook.pk, actor=webhook.owner, at=at)
            follow_up(happen())
            send_all()
            message = subscriber.messages[2]
            assert verified(message, newest)
            assert len(message.headers["webhook-signature"].split(" ")) == 2


def test_the_signature_covers_the_bytes_of_non_ascii_characters():
    with receiver() as subscriber:
        WebhookFactory(url=subscriber.url)
        follow_up(happen(booking=BookingFactory(notes="Ŝalom ✂ 💈")))
        send_all()
    assert verified(subscriber.messages[0])["data"]["notes"] == "Ŝalom ✂ 💈"
    assert "Ŝalom ✂ 💈".encode() in subscriber.messages[0].body


# --- retries ------------------------------------------------------------------------------------


def duration(**delivery):
    """Return how long the only attempt took, or the only attempt of this delivery."""
    return timedelta(milliseconds=Attempt.objects.get(**delivery).duration_ms)


def test_a_failed_message_is_retried_with_the_same_id(admin):
    at = timezone.now()
    with receiver(answer(500, b"Sorry."), answer(204)) as subscriber:
        webhook = WebhookFactory(url=subscriber.url)
        follow_up(happen(), at=at)
        send_all(at)
        webhook.refresh_from_db()
        assert webhook.failing_since == at
        [delivery] = log(admin, webhook)
        assert delivery["status"] == "pending"
        [waiting] = Delivery.objects.all()
        pause = waiting.next_attempt_at - at - duration()
        assert timedelta(seconds=5) <= pause <= timedelta(seconds=6)
        assert [job.scheduled_at for job in jobs()] == [waiting.next_attempt_at]
        send_all(waiting.next_attempt_at)
    first, second = subscriber.messages
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.headers["webhook-timestamp"] < second.headers["webhook-timestamp"]
    assert verified(first) == verified(second)
    [delivery] = log(admin, webhook)
    assert (delivery["status"], delivery["next_attempt_at"]) == ("delivered", None)
    assert [each["status_code"] for each in delivery["attempts"]] == [500, 204]
    assert [each["response"] for each in delivery["attempts"]] == ["Sorry.", ""]
    assert all(each["duration_ms"] >= 0 and each["error"] == "" for each in delivery["attempts"])
    webhook.refresh_from_db()
    assert webhook.failing_since is None


def test_pauses_between_retries_grow_until_the_webhook_is_switched_off_after_a_day(admin):
    began = at = timezone.now()
    with receiver(answer(503)) as subscriber:
        webhook = WebhookFactory(url=subscriber.url)
        follow_up(happen(), at=began)
        pauses = []
        while at is not None:
            send_all(at)
            planned = Delivery.objects.get().next_attempt_at
            if planned:
                pauses.append(planned - at)
            last, at = at, planned
    assert pauses == sorted(pauses)
    assert len(pauses) == 8
    assert DAY <= last - began <= 1.3 * DAY
    [delivery] = log(admin, webhook)
    assert delivery["status"] == "failed"
    assert len(delivery["attempts"]) == len(subscriber.messages) == 9
    shown = admin.get(f"/webhooks/{webhook.pk}").json()
    assert not shown["is_active"]
    assert "day" in shown["disabled_reason"]


def test_messages_that_failed_together_are_not_retried_together():
    at = timezone.now()
    with receiver(answer(503)) as subscriber:
        WebhookFactory.create_batch(5, url=subscriber.url)
        follow_up(happen(), at=at)
        send_all(at)
    # Pauses begin when the attempts end, which is not at the same time.
    pauses = {
        each.next_attempt_at - at - duration(delivery=each) for each in Delivery.objects.all()
    }
    assert len(pauses) == 5


def test_one_success_within_a_day_keeps_a_webhook_on():
    at = timezone.now()
    with receiver(answer(500), answer(204), answer(500)) as subscriber:
        webhook = WebhookFactory(url=subscriber.url)
        follow_up(happen(), at=at)
        send_all(at)
        send_all(at + 0.9 * DAY)
        follow_up(happen(), at=at)
        send_all(at + 1.8 * DAY)
    assert len(subscriber.messages) == 3
    webhook.refresh_from_db()
    assert webhook.is_active
    assert webhook.failing_since == at + 1.8 * DAY


def test_a_webhook_stays_on_until_its_attempts_have_failed_for_a_whole_day():
    began = timezone.now()
    with receiver(answer(500)) as subscriber:
        webhook = WebhookFactory(url=subscriber.url)
        for at, is_active in (
            (began, True),
            (began + DAY - timedelta(seconds=1), True),
            (began + DAY, False),
        ):
            follow_up(happen(), at=at)
            send_all(at)
            webhook.refresh_from_db()
            assert webhook.is_active == is_active


def test_a_410_switches_a_webhook_off_immediately(admin):
    with receiver(answer(410)) as subscriber:
        webhook = WebhookFactory(url=subscriber.url)
        follow_up(happen(), happen())
        send_all()
    assert len(subscriber.messages) == 1, "the second message is not sent"
    assert {each["status"] for each in log(admin, webhook)} == {"failed"}
    shown = admin.get(f"/webhooks/{webhook.pk}").json()
    assert not shown["is_active"]
    assert "410" in shown["disabled_reason"]

    back = admin.patch(f"/webhooks/{webhook.pk}", {"is_active": True}).json()
    assert (back["is_active"], back["disabled_reason"], back["failing_since"]) == (True, "", None)


def test_a_redirect_is_a_failure_and_is_not_followed(admin):
    with receiver() as inside, receiver(answer(307, Location=inside.url)) as subscriber:
        webhook = WebhookFactory(url=subscriber.url)
        follow_up(happen())
        send_all()
    assert inside.messages == []
    assert log(admin, webhook)[0]["attempts"][0]["status_code"] == 307
    assert log(admin, webhook)[0]["status"] == "pending"


AT = TUESDAY


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("120", timedelta(minutes=2), timedelta(minutes=2)),
        ("0", timedelta(seconds=5), timedelta(seconds=6)),
        (format_datetime(AT + HOUR, usegmt=True), HOUR, HOUR),
        (format_datetime(AT - HOUR, usegmt=True), timedelta(seconds=5), timedelta(seconds=6)),
        ("999999999999999999", deliveries.MAX_PAUSE, deliveries.MAX_PAUSE),
        (
            format_datetime(AT + 99 * DAY, usegmt=True),
            deliveries.MAX_PAUSE,
            deliveries.MAX_PAUSE,
        ),
        ("soon", timedelta(seconds=5), timedelta(seconds=6)),
        ("-5", timedelta(seconds=5), timedelta(seconds=6)),
        ("1e9", timedelta(seconds=5), timedelta(seconds=6)),
        # without a time zone
        ("Tue, 01 Jan 2999 11:00:00", timedelta(seconds=5), timedelta(seconds=6)),
    ],
)
def test_retry_after_is_respected_within_bounds(header, least, most):
    with receiver(answer(429, Retry_After=header)) as subscriber:
        WebhookFactory(url=subscriber.url)
        follow_up(happen())
        send_all(AT)
    pause = Delivery.objects.get().next_attempt_at - AT
    assert least <= pause
    assert pause - duration() <= most


def test_a_pause_begins_at_the_end_of_the_attempt():
    def slow(request):
        time.sleep(0.3)
        answer(429, Retry_After="120")(request)

    with receiver(slow) as subscriber:
        WebhookFactory(url=subscriber.url)
        follow_up(happen())
        send_all(AT)
    assert duration() >= timedelta(seconds=0.3)
    assert Delivery.objects.get().next_attempt_at == AT + duration() + timedelta(seconds=120)


def test_the_first_two_kibibytes_of_a_long_response_are_stored(admin):
    with receiver(answer(200, b"x" * 100_000)) as subscriber:
        webhook = WebhookFactory(url=subscriber.url)
        follow_up(happen())
        send_all()
    assert log(admin, webhook)[0]["attempts"][0]["response"] == "x" * 2048


# --- jobs that run twice, late or not at all ----------------------------------------------------


def test_a_job_that_runs_again_after_success_sends_nothing():
    with receiver() as subscriber:
        WebhookFactory(url=subscriber.url)
        follow_up(happen())
        [job] = jobs()
        do(job)
        do(job)
    assert len(subscriber.messages) == 1
    assert Attempt.objects.count() == 1


def test_a_job_that_runs_again_after_a_failure_leaves_the_retry_to_the_next_job():
    with receiver(answer(500)) as subscriber:
        WebhookFactory(url=subscriber.url)
        follow_up(happen())
        [job] = jobs()
        do(job)
        do(job)
    assert len(subscriber.messages) == 1
    [job] = jobs()
    assert job.scheduled_at == Delivery.objects.get().next_attempt_at


@pytest.mark.django_db(transaction=True)
def test_a_job_that_runs_twice_concurrently_schedules_one_retry():
    def wait_for_the_other(request):
        deadline = timezone.now() + timedelta(seconds=5)
        while len(subscriber.messages) < 2 and timezone.now() < deadline:
            pass
        answer(500)(request)

    with receiver(wait_for_the_other) as subscriber:
        WebhookFactory(url=subscriber.url)
        follow_up(happen())
        [job] = jobs()
        outcomes = at_once([lambda: do(job)] * 2)
    assert tally(outcomes) == {None: 2}
    assert len(subscriber.messages) == 2, "both jobs sent the message"
    assert Attempt.objects.count() == 2
    [job] = jobs()
    assert job.scheduled_at == Delivery.objects.get().next_attempt_at


@pytest.mark.django_db(transaction=True)
def test_deleting_a_webhook_during_a_delivery_deletes_its_log():
    def delete(request):
        webhooks.delete_webhook(webhook_id=webhook.pk)
        connection.close()
        answer(500)(request)

    with receiver(delete) as subscriber:
        webhook = WebhookFactory(url=subscriber.url)
        follow_up(happen())
        [job] = jobs()
        do(job)
    assert len(subscriber.messages) == 1
    assert not Delivery.objects.exists()
    assert not Attempt.objects.exists()
    assert jobs() == [], "no retry is scheduled"


@pytest.mark.django_db(transaction=True)
def test_deleting_a_webhook_succeeds_if_an_attempt_is_recorded_at_the_same_time():
    delivery = DeliveryFactory()

    transaction.set_autocommit(False)
    Delivery.objects.select_for_update().get()

    def meanwhile():
        until_waiting(1)
        AttemptFactory(delivery=delivery)
        transaction.commit()

    try:
        [outcome] = at_once(
            [lambda: webhooks.delete_webhook(webhook_id=delivery.webhook_id)], meanwhile=meanwhile
        )
    finally:
        transaction.set_autocommit(True)
    assert outcome.error is None
    assert not Attempt.objects.exists()


def test_pending_deliveries_fail_when_a_webhook_is_switched_off(admin):
    with receiver() as subscriber:
        webhook = WebhookFactory(url=subscriber.url)
        follow_up(happen())
        admin.patch(f"/webhooks/{webhook.pk}", {"is_active": False})
        send_all()
    assert subscriber.messages == []
    assert log(admin, webhook)[0]["status"] == "failed"


def test_messages_that_wait_for_a_retry_fail_as_soon_as_a_webhook_is_switched_off(admin):
    with receiver(answer(500)) as subscriber:
        webhook = WebhookFactory(url=subscriber.url)
        follow_up(happen())
        send_all()
    assert [job.scheduled_at for job in jobs()] == [Delivery.objects.get().next_attempt_at]
    admin.patch(f"/webhooks/{webhook.pk}", {"is_active": False})
    assert [job.scheduled_at for job in jobs()] == [None], "the job runs now"
    send_all()
    assert log(admin, webhook)[0]["status"] == "failed"


def test_no_request_is_sent_to_a_host_that_resolves_to_a_private_ip_address(admin, settings):
    with receiver() as subscriber:
        webhook = WebhookFactory(url=subscriber.url.replace("127.0.0.1", "localhost"))
        follow_up(happen())
        send_all()
        assert len(subscriber.messages) == 1
        settings.WEBHOOK_ALLOW_PRIVATE = False
        follow_up(happen())
        send_all()
    assert len(subscriber.messages) == 1
    [attempt] = log(admin, webhook)[0]["attempts"]
    assert attempt["status_code"] is None
    assert "not a public address" in attempt["error"]


def test_each_job_checks_the_ip_address_and_opens_one_connection(settings):
    with receiver() as subscriber:
        WebhookFactory(url=subscriber.url)
        follow_up(happen(), happen())
        send_all()
        settings.WEBHOOK_ALLOW_PRIVATE = False
        follow_up(happen())
        send_all()
    assert (len(subscriber.messages), subscriber.connections) == (2, 1)


# All of them lead to 127.0.0.1.
@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "[64:ff9b::7f00:1]", "localhost"])
def test_a_url_that_leads_to_a_private_ip_address_is_refused(admin, settings, host):
    settings.WEBHOOK_ALLOW_PRIVATE = False
    body = {"url": f"http://{host}/hook", "events": ["booking.created"]}
    content = problem(admin.post("/webhooks", body), 400, "validation_error", "url")
    assert "not a public address" in content["errors"][0]["message"]
    webhook = WebhookFactory()
    response = admin.patch(f"/webhooks/{webhook.pk}", {"url": body["url"]})
    problem(response, 400, "validation_error", "url")
    assert Webhook.objects.get().url == webhook.url
    settings.WEBHOOK_ALLOW_PRIVATE = True
    assert admin.post("/webhooks", body).status_code == 201


# --- tests and redeliveries ---------------------------------------------------------------------


def test_a_test_is_delivered_like_any_other_message(admin):
    with receiver() as subscriber:
        webhook = WebhookFactory(url=subscriber.url)
        response = admin.post(f"/webhooks/{webhook.pk}/test")
        assert response.status_code == 202
        assert response.json()["status"] == "pending"
        [job] = jobs()
        do(job)
    content = verified(subscriber.messages[0])
    assert (content["type"], content["data"]) == ("test", {})
    assert subscriber.messages[0].headers["webhook-id"] == response.json()["id"]
    assert log(admin, webhook)[0]["status"] == "delivered"


@pytest.mark.parametrize(
    ("first", "status"), [(204, "delivered"), (500, "pending"), (500, "failed")]
)
def test_a_message_can_be_sent_again_with_the_same_id_whatever_its_status(admin, first, status):
    with receiver(answer(first), answer(204)) as subscriber:
        webhook = WebhookFactory(url=subscriber.url)
        follow_up(happen())
        send_all()
        if status == "failed":  # as after the last retry
            Delivery.objects.update(status="failed", next_attempt_at=None)
            Webhook.objects.update(paused_until=None)
        [delivery] = log(admin, webhook)
        assert delivery["status"] == status
        path = f"/webhooks/{webhook.pk}/deliveries/{delivery['id']}/redeliver"
        response = admin.post(path)
        assert response.status_code == 202
        assert response.json()["id"] == delivery["id"]
        assert response.json()["status"] == "pending"
        send_all()
        send_all()
    assert [each.headers["webhook-id"] for each in subscriber.messages] == [delivery["id"]] * 2
    [delivery] = log(admin, webhook)
    assert delivery["status"] == "delivered"
    assert len(delivery["attempts"]) == 2


def test_tests_and_redeliveries_are_refused_while_a_webhook_is_off(admin):
    delivery = DeliveryFactory(webhook__is_active=False)
    path = f"/webhooks/{delivery.webhook_id}"
    problem(admin.post(f"{path}/test"), 409, "webhook_inactive")
    response = admin.post(f"{path}/deliveries/{delivery.pk}/redeliver")
    problem(response, 409, "webhook_inactive")
    assert jobs() == []


def test_a_webhook_has_only_its_own_deliveries_which_can_be_filtered_by_status(admin):
    one, other = DeliveryFactory(), DeliveryFactory(status="delivered")
    for webhook, delivery in ((one.webhook, other), (other.webhook, one)):
        path = f"/webhooks/{webhook.pk}/deliveries/{delivery.pk}/redeliver"
        problem(admin.post(path), 404, "not_found")
    path = f"/webhooks/{one.webhook_id}/deliveries"
    assert [each["id"] for each in admin.get(path).json()["results"]] == [str(one.pk)]
    assert admin.get(f"{path}?status=pending,failed").json()["count"] == 1
    assert admin.get(f"{path}?status=delivered").json()["count"] == 0


def test_the_log_of_five_deliveries_takes_at_most_four_queries(
    admin, django_assert_max_num_queries
):
    webhook = WebhookFactory()
    DeliveryFactory.create_batch(5, webhook=webhook)
    with django_assert_max_num_queries(4):
        assert len(log(admin, webhook)) == 5


def test_repeated_event_types_are_stored_once(admin):
    body = {"url": "https://8.8.8.8", "events": ["review.created", "booking.created"] * 2}
    made = admin.post("/webhooks", body).json()
    assert made["events"] == ["booking.created", "review.created"]


def test_old_deliveries_are_deleted_with_their_attempts(monkeypatch):
    monkeypatch.setattr("bookit.database.batches.BATCH", 2)
    at = timezone.now()
    for _ in range(5):
        DeliveryFactory(created_at=at - 31 * DAY)
    kept = DeliveryFactory(created_at=at - 29 * DAY)
    assert webhooks.prune_deliveries(at=at) == 5
    assert webhooks.prune_deliveries(at=at) == 0
    assert [each.delivery for each in Attempt.objects.all()] == [kept]


# --- the admin site -----------------------------------------------------------------------------


def test_the_admin_site_shows_why_a_webhook_is_off_and_no_secret_and_switches_and_deletes_it(
    client,
):
    client.force_login(AdminFactory())
    webhook = WebhookFactory(
        is_active=False, disabled_reason="It responded with 410 Gone.", previous_secret=SECRET
    )
    for path in (
        reverse("admin:bookings_webhook_changelist"),
        reverse("admin:bookings_webhook_change", args=[webhook.pk]),
    ):
        page = client.get(path).content.decode()
        assert "410 Gone" in page
        assert "whsec_" not in page
    for action, is_active in (("switch_on", True), ("switch_off", False)):
        client.post(
            reverse("admin:bookings_webhook_changelist"),
            {"action": action, "_selected_action": [str(webhook.pk)]},
        )
        webhook.refresh_from_db()
        assert (webhook.is_active, webhook.disabled_reason) == (is_active, "")
    client.post(
        reverse("admin:bookings_webhook_delete", args=[webhook.pk]), {"post": "yes"}, follow=True
    )
    assert not Webhook.objects.exists()


@pytest.mark.parametrize("action", ["switch_on", "switch_off"])
def test_only_webhooks_that_change_are_switched_and_logged(client, action):
    client.force_login(AdminFactory())
    both = WebhookFactory(is_active=True), WebhookFactory(is_active=False)
    [changed] = [each for each in both if each.is_active == (action == "switch_off")]
    response = client.post(
        reverse("admin:bookings_webhook_changelist"),
        {"action": action, "_selected_action": [str(each.pk) for each in both]},
        follow=True,
    )
    assert f"1 webhook {action.replace('switch', 'switched').replace('_', ' ')}." in (
        response.content.decode()
    )
    assert LogEntry.objects.get().object_id == str(changed.pk)


def test_the_admin_site_shows_attempts_and_redelivers(client):
    client.force_login(AdminFactory())
    delivery = DeliveryFactory(status="failed", next_attempt_at=None)
    off = DeliveryFactory(status="failed", webhook__is_active=False, next_attempt_at=None)
    page = client.get(reverse("admin:bookings_delivery_change", args=[delivery.pk]))
    assert "500 Internal Server Error" in page.content.decode()
    response = client.post(
        reverse("admin:bookings_delivery_changelist"),
        {"action": "redeliver", "_selected_action": [str(delivery.pk), str(off.pk)]},
    )
    messages = " ".join(str(each) for each in get_messages(response.wsgi_request))
    assert "1 message will be sent again now." in messages
    assert "switched off" in messages
    delivery.refresh_from_db()
    assert delivery.status == "pending"
    assert [job.args["webhook_id"] for job in jobs()] == [str(delivery.webhook_id)]


# --- with a worker ------------------------------------------------------------------------------


@pytest.fixture
def work():
    """Return a function that runs all due jobs as a worker does."""
    connector = app.connector.get_worker_connector()

    def jobs_left():
        relay_jobs()
        return {job.pk for job in ProcrastinateJob.objects.all()}

    def run_workers():
        before = None
        # A worker with `wait=False` stops when no job can start, even if jobs wait for the lock of
        # the job that it is running. So start workers until a worker leaves the jobs unchanged.
        while before != (before := jobs_left()):
            with app.replace_connector(connector) as worker:
                worker.run_worker(
                    wait=False,
                    install_signal_handlers=False,
                    listen_notify=False,
                    concurrency=4,
                    delete_jobs="successful",
                )

    return run_workers


def due_now():
    """Make all retries due."""
    run("UPDATE bookings_delivery SET next_attempt_at = now() WHERE status = 'pending'")
    run("UPDATE bookings_webhook SET paused_until = NULL")
    run("UPDATE procrastinate_jobs SET scheduled_at = now() WHERE status = 'todo'")


@pytest.mark.django_db(transaction=True)
def test_events_arrive_in_order_from_a_worker_that_runs_several_jobs_at_once(work):
    service = ServiceFactory(capacity=9)
    running, counts = [], []

    def take_time(request):
        running.append(request)
        counts.append(len(running))
        time.sleep(0.05)
        running.remove(request)
        answer()(request)

    with receiver(take_time) as subscriber:
        WebhookFactory(url=subscriber.url)
        happened = [happen(booking=BookingFactory(service=service, seat=n)) for n in range(1, 9)]
        work()
        assert order(subscriber, happened) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert set(counts) == {1}, "each message waits for the one before it"
    assert jobs() == []


@pytest.mark.django_db(transaction=True)
def test_other_messages_wait_for_one_quick_retry_but_not_for_later_retries(work):
    booking = BookingFactory()

    def fail_the_first(request):
        first = subscriber.messages[0].headers["webhook-id"]
        fails = subscriber.messages[-1].headers["webhook-id"] == first
        answer(500 if fails else 204)(request)

    with receiver(fail_the_first) as subscriber:
        WebhookFactory(url=subscriber.url)
        happened = [happen(booking=booking) for _ in range(3)]
        work()
        assert order(subscriber, happened) == [0], "the other messages wait for the quick retry"
        due_now()
        work()
        assert order(subscriber, happened) == [0, 0, 1, 2], (
            "the other messages are sent after the retry"
        )
        due_now()
        work()
        assert order(subscriber, happened) == [0, 0, 1, 2, 0], (
            "the failing message is retried by itself"
        )


@pytest.mark.django_db(transaction=True)
def test_the_order_is_kept_if_the_quick_retry_succeeds(work):
    booking = BookingFactory()
    with receiver(answer(500), answer(204)) as subscriber:
        WebhookFactory(url=subscriber.url)
        happened = [happen(booking=booking) for _ in range(3)]
        work()
        due_now()
        work()
        assert order(subscriber, happened) == [0, 0, 1, 2]
    assert {each.status for each in Delivery.objects.all()} == {"delivered"}
