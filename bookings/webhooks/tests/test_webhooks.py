"""Webhooks: who asked is told, in order, signed, until it has arrived or there is no hope left."""

import json
import time
from datetime import timedelta
from email.utils import format_datetime

import pytest
import standardwebhooks
import time_machine
from asgiref.sync import async_to_sync
from django.contrib.messages import get_messages
from django.db import connection, transaction
from django.urls import reverse
from django.utils import timezone
from procrastinate.contrib.django import app
from procrastinate.contrib.django.models import ProcrastinateJob

from accounts.tests.factories import AdminFactory
from bookings import events, followup, services
from bookings.events import TOLD
from bookings.mails.occasions import occasions
from bookings.models import Booking, BookingEvent
from bookings.tests.factories import (
    TUESDAY,
    AttemptFactory,
    BookingFactory,
    DeliveryFactory,
    WebhookFactory,
)
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
SECRET = "whsec_Tk90IGEgc2VjcmV0LCBidXQgYW4gZXhhbXBsZSE="


@pytest.fixture(autouse=True)
def anywhere(settings):
    """Loopback may be called, for that is where the receivers are."""
    settings.WEBHOOK_ALLOW_PRIVATE = True


@pytest.fixture(autouse=True)
def no_jobs_left(db):
    """Jobs are in tables that are not emptied after tests that commit."""
    run("DELETE FROM procrastinate_jobs")
    yield
    run("DELETE FROM procrastinate_jobs")


@pytest.fixture
def admin(api):
    return api.as_(AdminFactory())


def happen(kind=BookingEvent.Type.CONFIRMED, booking=None, at=None):
    """Let something happen to a booking, and return the event."""
    return events.record(booking or BookingFactory(), kind, actor=None, at=at or timezone.now())


def follow_up(*happened, at=None):
    followup.follow_up(event_ids=[event.pk for event in happened], at=at or timezone.now())


def send(webhook, at=None):
    """Send a webhook what is due, as its job does, which is no longer waiting then."""
    run(f"DELETE FROM procrastinate_jobs WHERE lock = 'webhook-{webhook.pk}'")
    now = (lambda: at) if at else timezone.now
    async_to_sync(deliveries.deliver)(webhook_id=webhook.pk, now=now)


def try_all(at=None):
    """Send each webhook what is due."""
    for webhook in Webhook.objects.all():
        send(webhook, at)


def verified(message, secret=SECRET):
    """Return what a receiver reads that verifies as Standard Webhooks says."""
    return standardwebhooks.Webhook(secret).verify(message.body, message.headers)


def jobs():
    """Return the jobs of webhooks that wait, in the order of their making."""
    return [
        *ProcrastinateJob.objects.filter(task_name="bookings.deliver", status="todo").order_by("id")
    ]


def do(job):
    """Do a job, as a worker does."""
    run(f"UPDATE procrastinate_jobs SET status = 'succeeded' WHERE id = {job.pk}")
    async_to_sync(tasks.deliver.func)(**job.args)


def log(admin, webhook):
    return admin.get(f"/webhooks/{webhook.pk}/deliveries").json()["results"]


# --- who is told, and of what -------------------------------------------------------------------


def test_whoever_asks_is_told_of_a_booking_as_the_api_shows_it(admin):
    with receiver() as other:
        made = admin.post("/webhooks", {"url": other.url, "events": ["booking.confirmed"]}).json()
        booking = BookingFactory(notes="By the window")
        admin.patch(f"/bookings/{booking.pk}", {"status": "confirmed"})
        follow_up(*BookingEvent.objects.all())
        try_all()
    [message] = other.messages
    told = verified(message, made["secret"])
    shown = admin.get(f"/bookings/{booking.pk}").json()
    assert told == {
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
def test_the_end_of_a_hold_is_not_announced(admin, kind):
    booking = BookingFactory()
    for was in ("held", "pending"):
        events.record(
            booking, BookingEvent.Type(kind), actor=None, at=timezone.now(), was={"status": was}
        )
    WebhookFactory()
    follow_up(*BookingEvent.objects.all())
    assert [each.event.data["was"] for each in Delivery.objects.all()] == [{"status": "pending"}]


def test_webhooks_the_event_feed_and_mails_agree_on_which_events_are_announced():
    """Each event type, after each status, with the old status unknown, and with no old values."""
    old_values = [None, {"seat": 2}, *({"status": status} for status in Booking.Status)]
    booking, at = BookingFactory(), timezone.now()
    happened = [
        events.record(booking, kind, actor=None, at=at, was=was)
        for kind in TOLD
        for was in old_values
    ]
    ids = [event.pk for event in happened]
    webhook = WebhookFactory(events=[str(kind) for kind in TOLD])
    webhooks.enqueue(event_ids=ids, at=at)

    delivered = {delivery.event_id for delivery in webhook.deliveries.all()}
    listed = {event.pk for event in EventViewSet.queryset}
    mailed = {each.event_id for each in occasions(ids) if each.is_announced}
    ends_of_holds = {
        event.pk
        for event in happened
        if event.type in ("booking.cancelled", "booking.expired")
        and event.data.get("was") == {"status": "held"}
    }
    assert len(ends_of_holds) == 2
    assert delivered == listed == mailed == {*ids} - ends_of_holds


def test_what_is_told_is_the_state_that_came_of_the_event():
    booking = BookingFactory(status="pending", price=1500, currency="JPY")
    created = happen(BookingEvent.Type.CREATED, booking)
    services.change_status(
        booking_id=booking.pk, status="cancelled", actor=AdminFactory(), at=timezone.now()
    )
    with receiver() as other:
        WebhookFactory(url=other.url)
        follow_up(created)
        try_all()
    told = verified(other.messages[0])
    assert told["data"]["status"] == "pending"
    assert told["data"]["updated_at"] == told["timestamp"]
    assert told["data"]["price"] == "1500"


def test_of_a_booking_that_is_gone_its_id_and_its_state_are_told():
    booking = BookingFactory(notes="private")
    event = happen(BookingEvent.Type.CANCELLED, booking)
    pk = booking.pk
    booking.delete()
    with receiver() as other:
        WebhookFactory(url=other.url)
        follow_up(event)
        try_all()
    assert verified(other.messages[0])["data"] == {
        "id": str(pk),
        "status": "pending",
        "start_time": "2999-01-01T10:00:00Z",
        "end_time": "2999-01-01T11:00:00Z",
        "seat": 1,
        "slot_id": None,
        "hold_expires_at": None,
    }


def test_of_what_nobody_asked_for_nobody_is_told():
    WebhookFactory(events=["booking.cancelled"])
    WebhookFactory(is_active=False)
    asked = WebhookFactory(events=["booking.cancelled", "booking.created"])
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
    assert (delivery.webhook, delivery.type) == (asked, "booking.created")


def test_many_events_for_many_webhooks_take_as_many_queries_as_one(django_assert_num_queries):
    booking = BookingFactory()
    happened = [happen(booking=booking) for _ in range(30)]
    for _ in range(3):
        WebhookFactory()
    with django_assert_num_queries(3):
        webhooks.enqueue(event_ids=[event.pk for event in happened], at=timezone.now())
    assert Delivery.objects.count() == 90
    assert len(jobs()) == 3
    assert {delivery.pk.version for delivery in Delivery.objects.all()} == {7}


def test_what_is_followed_up_twice_is_sent_once():
    WebhookFactory()
    event = happen()
    follow_up(event)
    follow_up(event)
    assert Delivery.objects.count() == len(jobs()) == 1


def test_an_event_takes_along_those_before_it_that_another_worker_still_has():
    with receiver() as other:
        WebhookFactory(url=other.url)
        first, second = happen(), happen()
        follow_up(second)
        follow_up(first)
        try_all()
        assert order(other, [first, second]) == [0, 1]


def test_what_is_so_old_that_its_delivery_may_be_gone_is_not_taken_along():
    WebhookFactory()
    happen(at=timezone.now() - 31 * DAY)
    event = happen()
    follow_up(event)
    assert [each.event_id for each in Delivery.objects.all()] == [event.pk]


def test_a_webhook_has_one_job_however_much_waits_for_it():
    first, second = WebhookFactory(), WebhookFactory()
    follow_up(happen())
    follow_up(happen(), happen())
    locks = [f"webhook-{first.pk}", f"webhook-{second.pk}"]
    assert [job.lock for job in jobs()] == [job.queueing_lock for job in jobs()] == locks
    assert {job.queue_name for job in jobs()} == {"webhooks"}
    assert Delivery.objects.count() == 6


# --- from when on -------------------------------------------------------------------------------


def sent():
    """Return the events that are sent, in order."""
    return [each.event_id for each in Delivery.objects.order_by("event")]


def test_what_happened_before_a_webhook_was_made_is_not_sent_however_late_it_is_followed_up(admin):
    before = happen()
    admin.post("/webhooks", {"url": "https://8.8.8.8", "events": ["booking.confirmed"]})
    after = happen()
    follow_up(before)
    follow_up(after)
    assert sent() == [after.pk]


@pytest.mark.parametrize("skew", [-HOUR, HOUR])
def test_clocks_do_not_say_what_happened_before(admin, skew):
    """The host that makes a webhook and the one that books can disagree about the time."""
    before = happen(at=timezone.now() - skew)
    admin.post("/webhooks", {"url": "https://8.8.8.8", "events": ["booking.confirmed"]})
    after = happen(at=timezone.now() + skew)
    follow_up(before, after)
    assert sent() == [after.pk]


@pytest.mark.django_db(transaction=True)
def test_what_has_its_id_before_a_webhook_is_made_and_is_committed_later_is_not_sent(admin):
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
    assert sent() == []


def test_what_happened_while_a_webhook_was_off_is_not_sent(admin):
    webhook = WebhookFactory()
    admin.patch(f"/webhooks/{webhook.pk}", {"is_active": False})
    before = happen()
    admin.patch(f"/webhooks/{webhook.pk}", {"is_active": True})
    after = happen()
    follow_up(before, after)
    assert sent() == [after.pk]


def test_a_webhook_that_asks_for_another_type_is_not_sent_what_happened_before(admin):
    webhook = WebhookFactory(events=["booking.confirmed"])
    known, before = happen(), happen(BookingEvent.Type.CANCELLED)
    admin.patch(f"/webhooks/{webhook.pk}", {"events": ["booking.cancelled", "booking.confirmed"]})
    after = happen(BookingEvent.Type.CANCELLED)
    follow_up(known, before, after)
    assert sent() == [known.pk, after.pk], "what it asked for already is not lost"


def test_types_that_were_dropped_begin_anew_when_they_are_asked_for_again(admin):
    webhook = WebhookFactory(events=["booking.confirmed", "booking.cancelled"])
    for asked in (["booking.cancelled"], ["booking.confirmed"]):
        before = happen()
        admin.patch(f"/webhooks/{webhook.pk}", {"events": asked})
    after = happen()
    follow_up(before, after)
    assert sent() == [after.pk]


# --- whose they are -----------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"role": "user"}, {"role": "provider"}, {"is_active": False}])
def test_nothing_is_sent_for_an_owner_who_is_no_longer_an_admin(admin, change):
    with receiver() as other:
        webhook = WebhookFactory(url=other.url)
        waiting = happen()
        follow_up(waiting)
        type(webhook.owner).objects.filter(pk=webhook.owner_id).update(**change)
        follow_up(happen())
        try_all()
    assert other.messages == []
    assert sent() == [waiting.pk]
    assert log(admin, webhook)[0]["status"] == "failed"
    path = f"/webhooks/{webhook.pk}"
    for shown in (admin.get(path).json(), admin.get("/webhooks").json()["results"][0]):
        assert not shown["is_active"]
        assert "no longer an admin" in shown["disabled_reason"]
    problem(admin.post(f"{path}/test"), 409, "webhook_inactive")


def test_another_admin_resumes_a_webhook_by_switching_it_on(admin):
    with receiver() as other:
        webhook = WebhookFactory(url=other.url, owner=None)
        before = happen()
        back = admin.patch(f"/webhooks/{webhook.pk}", {"is_active": True}).json()
        assert (back["is_active"], back["disabled_reason"]) == (True, "")
        after = happen()
        follow_up(before, after)
        try_all()
        assert order(other, [after]) == [0]
    webhook.refresh_from_db()
    assert back["owner_id"] == str(webhook.owner_id)


def test_whoever_makes_a_webhook_or_renews_its_secret_owns_it():
    webhook = WebhookFactory()
    before, later = webhook.owner, AdminFactory()
    made = webhooks.create_webhook(
        actor=before, url=webhook.url, events=webhook.events, at=timezone.now()
    )
    assert made.owner == before
    for changes in ({"is_active": True}, {"events": ["booking.created"]}):
        webhooks.update_webhook(webhook_id=made.pk, actor=later, changes=changes, at=timezone.now())
        assert Webhook.objects.get(pk=made.pk).owner == before, "it was on already"
    assert webhooks.rotate_secret(webhook_id=made.pk, actor=later, at=timezone.now()).owner == later


def test_the_admin_site_says_that_nobody_owns_a_webhook_and_switches_it_on(client):
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


def test_the_secret_is_shown_when_it_is_made_and_never_again(admin):
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


def test_for_a_day_the_secret_before_signs_as_well(admin):
    with receiver() as other:
        webhook = WebhookFactory(url=other.url)
        answered = admin.post(f"/webhooks/{webhook.pk}/rotate-secret")
        assert answered.status_code == 200
        new = answered.json()["secret"]
        assert new != SECRET
        follow_up(happen())
        try_all()
        [message] = other.messages
        assert len(message.headers["webhook-signature"].split(" ")) == 2
        assert verified(message, new) == verified(message, SECRET)

        with time_machine.travel(timezone.now() + DAY + HOUR, tick=True):
            follow_up(happen())
            try_all()
            message = other.messages[1]
            assert len(message.headers["webhook-signature"].split(" ")) == 1
            assert verified(message, new)
            with pytest.raises(standardwebhooks.WebhookVerificationError):
                verified(message, SECRET)
    assert b"whsec_" not in admin.get(f"/webhooks/{webhook.pk}").content


# --- again, and again ---------------------------------------------------------------------------


def test_what_fails_is_tried_again_under_the_same_id(admin):
    at = timezone.now()
    with receiver(answer(500, b"Sorry."), answer(204)) as other:
        webhook = WebhookFactory(url=other.url)
        follow_up(happen(), at=at)
        try_all(at)
        webhook.refresh_from_db()
        assert webhook.failing_since == at
        [delivery] = log(admin, webhook)
        assert delivery["status"] == "pending"
        [waiting] = Delivery.objects.all()
        assert timedelta(seconds=5) <= waiting.next_attempt_at - at <= timedelta(seconds=6)
        assert [job.scheduled_at for job in jobs()] == [waiting.next_attempt_at]
        try_all(at + timedelta(seconds=6))
    first, second = other.messages
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


def test_pauses_grow_over_a_day_and_then_the_webhook_is_switched_off(admin):
    began = at = timezone.now()
    with receiver(answer(503)) as other:
        webhook = WebhookFactory(url=other.url)
        follow_up(happen(), at=began)
        pauses = []
        while at is not None:
            try_all(at)
            planned = Delivery.objects.get().next_attempt_at
            if planned:
                pauses.append(planned - at)
            last, at = at, planned
    assert pauses == sorted(pauses)
    assert len(pauses) == 8
    assert DAY <= last - began <= 1.3 * DAY
    [delivery] = log(admin, webhook)
    assert delivery["status"] == "failed"
    assert len(delivery["attempts"]) == len(other.messages) == 9
    shown = admin.get(f"/webhooks/{webhook.pk}").json()
    assert not shown["is_active"]
    assert "day" in shown["disabled_reason"]


def test_pauses_differ_so_that_what_failed_together_does_not_come_back_together():
    at = timezone.now()
    with receiver(answer(503)) as other:
        WebhookFactory.create_batch(5, url=other.url)
        follow_up(happen(), at=at)
        try_all(at)
    assert len({each.next_attempt_at for each in Delivery.objects.all()}) == 5


def test_one_success_within_the_day_keeps_a_webhook_on():
    at = timezone.now()
    with receiver(answer(500), answer(204), answer(500)) as other:
        webhook = WebhookFactory(url=other.url)
        follow_up(happen(), at=at)
        try_all(at)
        try_all(at + 0.9 * DAY)
        follow_up(happen(), at=at)
        try_all(at + 1.8 * DAY)
    assert len(other.messages) == 3
    webhook.refresh_from_db()
    assert webhook.is_active
    assert webhook.failing_since == at + 1.8 * DAY


def test_a_410_switches_a_webhook_off_at_once(admin):
    with receiver(answer(410)) as other:
        webhook = WebhookFactory(url=other.url)
        follow_up(happen(), happen())
        try_all()
    assert len(other.messages) == 1, "the second one is not even tried"
    assert {each["status"] for each in log(admin, webhook)} == {"failed"}
    shown = admin.get(f"/webhooks/{webhook.pk}").json()
    assert not shown["is_active"]
    assert "410" in shown["disabled_reason"]

    back = admin.patch(f"/webhooks/{webhook.pk}", {"is_active": True}).json()
    assert (back["is_active"], back["disabled_reason"], back["failing_since"]) == (True, "", None)


def test_a_redirect_is_a_failure_and_nobody_follows_it(admin):
    with receiver() as inside, receiver(answer(307, Location=inside.url)) as other:
        webhook = WebhookFactory(url=other.url)
        follow_up(happen())
        try_all()
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
        ("999999999999999999", deliveries.LONGEST_PAUSE, deliveries.LONGEST_PAUSE),
        (
            format_datetime(AT + 99 * DAY, usegmt=True),
            deliveries.LONGEST_PAUSE,
            deliveries.LONGEST_PAUSE,
        ),
        ("soon", timedelta(seconds=5), timedelta(seconds=6)),
        ("-5", timedelta(seconds=5), timedelta(seconds=6)),
        ("1e9", timedelta(seconds=5), timedelta(seconds=6)),
        ("Tue, 01 Jan 2999 11:00:00", timedelta(seconds=5), timedelta(seconds=6)),
    ],
)
def test_who_asks_for_time_is_given_it_within_bounds(header, least, most):
    with receiver(answer(429, Retry_After=header)) as other:
        WebhookFactory(url=other.url)
        follow_up(happen())
        try_all(AT)
    [delivery] = Delivery.objects.all()
    assert least <= delivery.next_attempt_at - AT <= most


def test_of_a_long_answer_two_kibibytes_are_kept(admin):
    with receiver(answer(200, b"x" * 100_000)) as other:
        webhook = WebhookFactory(url=other.url)
        follow_up(happen())
        try_all()
    assert log(admin, webhook)[0]["attempts"][0]["response"] == "x" * 2048


# --- twice, late, or not at all -----------------------------------------------------------------


def test_a_job_that_runs_again_after_success_sends_nothing():
    with receiver() as other:
        WebhookFactory(url=other.url)
        follow_up(happen())
        [job] = jobs()
        do(job)
        do(job)
    assert len(other.messages) == 1
    assert Attempt.objects.count() == 1


def test_a_job_that_runs_again_after_a_failure_leaves_it_to_the_next_one():
    with receiver(answer(500)) as other:
        WebhookFactory(url=other.url)
        follow_up(happen())
        [job] = jobs()
        do(job)
        do(job)
    assert len(other.messages) == 1
    [job] = jobs()
    assert job.scheduled_at == Delivery.objects.get().next_attempt_at


@pytest.mark.django_db(transaction=True)
def test_a_job_that_runs_twice_at_once_plans_one_retry():
    def wait_for_the_other(request):
        deadline = timezone.now() + timedelta(seconds=5)
        while len(other.messages) < 2 and timezone.now() < deadline:
            pass
        answer(500)(request)

    with receiver(wait_for_the_other) as other:
        WebhookFactory(url=other.url)
        follow_up(happen())
        [job] = jobs()
        outcomes = at_once([lambda: do(job)] * 2)
    assert tally(outcomes) == {None: 2}
    assert len(other.messages) == 2, "both were on their way"
    assert Attempt.objects.count() == 2
    [job] = jobs()
    assert job.scheduled_at == Delivery.objects.get().next_attempt_at


@pytest.mark.django_db(transaction=True)
def test_a_webhook_that_is_deleted_while_it_is_told_takes_its_log_with_it():
    def delete(request):
        webhooks.delete_webhook(webhook_id=webhook.pk)
        connection.close()
        answer(500)(request)

    with receiver(delete) as other:
        webhook = WebhookFactory(url=other.url)
        follow_up(happen())
        [job] = jobs()
        do(job)
    assert len(other.messages) == 1
    assert not Delivery.objects.exists()
    assert not Attempt.objects.exists()
    assert jobs() == [], "no retry"


@pytest.mark.django_db(transaction=True)
def test_an_attempt_that_ends_while_its_delivery_is_deleted_stands_in_nobodys_way():
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


def test_deliveries_of_a_webhook_that_was_switched_off_end_as_failed(admin):
    with receiver() as other:
        webhook = WebhookFactory(url=other.url)
        follow_up(happen())
        admin.patch(f"/webhooks/{webhook.pk}", {"is_active": False})
        try_all()
    assert other.messages == []
    assert log(admin, webhook)[0]["status"] == "failed"


def test_a_name_that_leads_inside_by_the_time_of_the_attempt_is_not_called(admin, settings):
    with receiver() as other:
        webhook = WebhookFactory(url=other.url)
        settings.WEBHOOK_ALLOW_PRIVATE = False
        follow_up(happen())
        try_all()
    assert other.messages == []
    [attempt] = log(admin, webhook)[0]["attempts"]
    assert attempt["status_code"] is None
    assert "not a public address" in attempt["error"]


def test_each_run_checks_the_address_and_makes_one_connection(settings):
    with receiver() as other:
        WebhookFactory(url=other.url)
        follow_up(happen(), happen())
        try_all()
        settings.WEBHOOK_ALLOW_PRIVATE = False
        follow_up(happen())
        try_all()
    assert (len(other.messages), other.connections) == (2, 1)


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "[64:ff9b::7f00:1]", "localhost"])
def test_an_address_inside_is_refused_when_it_is_given(admin, settings, host):
    settings.WEBHOOK_ALLOW_PRIVATE = False
    body = {"url": f"http://{host}/hook", "events": ["booking.created"]}
    content = problem(admin.post("/webhooks", body), 400, "validation_error", "url")
    assert "not a public address" in content["errors"][0]["message"]
    webhook = WebhookFactory()
    answered = admin.patch(f"/webhooks/{webhook.pk}", {"url": body["url"]})
    problem(answered, 400, "validation_error", "url")
    assert Webhook.objects.get().url == webhook.url
    settings.WEBHOOK_ALLOW_PRIVATE = True
    assert admin.post("/webhooks", body).status_code == 201


# --- by hand ------------------------------------------------------------------------------------


def test_a_test_is_delivered_as_any_other_message(admin):
    with receiver() as other:
        webhook = WebhookFactory(url=other.url)
        answered = admin.post(f"/webhooks/{webhook.pk}/test")
        assert answered.status_code == 202
        assert answered.json()["status"] == "pending"
        [job] = jobs()
        do(job)
    told = verified(other.messages[0])
    assert (told["type"], told["data"]) == ("test", {})
    assert other.messages[0].headers["webhook-id"] == answered.json()["id"]
    assert log(admin, webhook)[0]["status"] == "delivered"


@pytest.mark.parametrize("first", [204, 500])
def test_a_message_is_sent_again_under_the_same_id_whatever_became_of_it(admin, first):
    with receiver(answer(first), answer(204)) as other:
        webhook = WebhookFactory(url=other.url)
        follow_up(happen())
        try_all()
        [delivery] = log(admin, webhook)
        path = f"/webhooks/{webhook.pk}/deliveries/{delivery['id']}/redeliver"
        answered = admin.post(path)
        assert answered.status_code == 202
        assert answered.json()["id"] == delivery["id"]
        assert answered.json()["status"] == "pending"
        try_all()
        try_all()
    assert [each.headers["webhook-id"] for each in other.messages] == [delivery["id"]] * 2
    [delivery] = log(admin, webhook)
    assert delivery["status"] == "delivered"
    assert len(delivery["attempts"]) == 2


def test_a_webhook_that_is_off_is_sent_nothing_by_hand(admin):
    delivery = DeliveryFactory(webhook__is_active=False)
    path = f"/webhooks/{delivery.webhook_id}"
    problem(admin.post(f"{path}/test"), 409, "webhook_inactive")
    answered = admin.post(f"{path}/deliveries/{delivery.pk}/redeliver")
    problem(answered, 409, "webhook_inactive")
    assert jobs() == []


def test_deliveries_are_found_under_their_own_webhook_alone_and_by_status(admin):
    one, other = DeliveryFactory(), DeliveryFactory(status="delivered")
    for webhook, delivery in ((one.webhook, other), (other.webhook, one)):
        path = f"/webhooks/{webhook.pk}/deliveries/{delivery.pk}/redeliver"
        problem(admin.post(path), 404, "not_found")
    path = f"/webhooks/{one.webhook_id}/deliveries"
    assert [each["id"] for each in admin.get(path).json()["results"]] == [str(one.pk)]
    assert admin.get(f"{path}?status=pending,failed").json()["count"] == 1
    assert admin.get(f"{path}?status=delivered").json()["count"] == 0


def test_the_log_takes_as_many_queries_for_many_deliveries(admin, django_assert_max_num_queries):
    webhook = WebhookFactory()
    DeliveryFactory.create_batch(5, webhook=webhook)
    with django_assert_max_num_queries(4):
        assert len(log(admin, webhook)) == 5


def test_what_a_webhook_asks_for_is_kept_once_each(admin):
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


def test_the_admin_site_shows_why_a_webhook_is_off_and_no_secret(client):
    client.force_login(AdminFactory())
    webhook = WebhookFactory(
        is_active=False, disabled_reason="It answered 410 Gone.", previous_secret=SECRET
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


def test_the_admin_site_shows_attempts_and_redelivers(client):
    client.force_login(AdminFactory())
    delivery = DeliveryFactory(status="failed", next_attempt_at=None)
    off = DeliveryFactory(status="failed", webhook__is_active=False, next_attempt_at=None)
    page = client.get(reverse("admin:bookings_delivery_change", args=[delivery.pk]))
    assert "500" in page.content.decode()
    answered = client.post(
        reverse("admin:bookings_delivery_changelist"),
        {"action": "redeliver", "_selected_action": [str(delivery.pk), str(off.pk)]},
    )
    said = " ".join(str(each) for each in get_messages(answered.wsgi_request))
    assert "1 changed." in said
    assert "switched off" in said
    delivery.refresh_from_db()
    assert delivery.status == "pending"
    assert [job.args["webhook_id"] for job in jobs()] == [str(delivery.webhook_id)]


# --- with a worker ------------------------------------------------------------------------------


@pytest.fixture
def work():
    """Return a function that does all jobs that are due, as a worker does."""
    connector = app.connector.get_worker_connector()

    def work_off():
        before = None
        # One that does not wait leaves when all that is left stands behind what it is doing.
        while before != (before := {job.pk for job in ProcrastinateJob.objects.all()}):
            with app.replace_connector(connector) as worker:
                worker.run_worker(
                    wait=False,
                    install_signal_handlers=False,
                    listen_notify=False,
                    concurrency=4,
                    delete_jobs="successful",
                )

    return work_off


def due_now():
    """Let the time of all retries have come."""
    run("UPDATE bookings_delivery SET next_attempt_at = now() WHERE status = 'pending'")
    run("UPDATE bookings_webhook SET paused_until = NULL")
    run("UPDATE procrastinate_jobs SET scheduled_at = now() WHERE status = 'todo'")


def order(other, happened):
    """Return the events in the order in which they arrived, by number."""
    numbers = {str(each.pk): number for number, each in enumerate(happened)}
    sent = {str(each.pk): str(each.event_id) for each in Delivery.objects.all()}
    return [numbers[sent[each.headers["webhook-id"]]] for each in other.messages]


@pytest.mark.django_db(transaction=True)
def test_events_arrive_in_their_order_from_a_worker_that_does_several_jobs_at_once(work):
    service = ServiceFactory(capacity=9)
    under_way, most = [], []

    def take_time(request):
        under_way.append(request)
        most.append(len(under_way))
        time.sleep(0.05)
        under_way.remove(request)
        answer()(request)

    with receiver(take_time) as other:
        WebhookFactory(url=other.url)
        happened = [happen(booking=BookingFactory(service=service, seat=n)) for n in range(1, 9)]
        work()
        assert order(other, happened) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert set(most) == {1}, "each waits for the one before it"
    assert jobs() == []


@pytest.mark.django_db(transaction=True)
def test_others_wait_for_one_quick_retry_and_not_for_what_keeps_failing(work):
    booking = BookingFactory()

    def fail_the_first(request):
        first = other.messages[0].headers["webhook-id"]
        fails = other.messages[-1].headers["webhook-id"] == first
        answer(500 if fails else 204)(request)

    with receiver(fail_the_first) as other:
        WebhookFactory(url=other.url)
        happened = [happen(booking=booking) for _ in range(3)]
        work()
        assert order(other, happened) == [0], "the others wait for its quick retry"
        due_now()
        work()
        assert order(other, happened) == [0, 0, 1, 2], "which fails, and they go on"
        due_now()
        work()
        assert order(other, happened) == [0, 0, 1, 2, 0], "and it by itself"


@pytest.mark.django_db(transaction=True)
def test_order_is_kept_across_a_failure_that_passes(work):
    booking = BookingFactory()
    with receiver(answer(500), answer(204)) as other:
        WebhookFactory(url=other.url)
        happened = [happen(booking=booking) for _ in range(3)]
        work()
        due_now()
        work()
        assert order(other, happened) == [0, 0, 1, 2]
    assert {each.status for each in Delivery.objects.all()} == {"delivered"}


def test_a_message_is_the_same_however_it_is_written():
    """What is signed is what is sent, with letters beyond ASCII."""
    with receiver() as other:
        WebhookFactory(url=other.url)
        follow_up(happen(booking=BookingFactory(notes="Ŝalom ✂ 💈")))
        try_all()
    assert verified(other.messages[0])["data"]["notes"] == "Ŝalom ✂ 💈"
    assert json.loads(other.messages[0].body)["data"]["notes"] == "Ŝalom ✂ 💈"
