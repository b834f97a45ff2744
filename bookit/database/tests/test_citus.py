"""A Citus cluster: races, dead workers, shards that move, backups, upgrades and a replica.

A worker is a server of the cluster here, not a process that runs jobs.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial

import psycopg
import pytest
from django.core import mail
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.test import Client
from django.utils import timezone
from procrastinate.contrib.django import app
from procrastinate.contrib.django.models import ProcrastinateJob
from rest_framework_simplejwt.tokens import AccessToken
from uuid_utils.compat import uuid7

from accounts.models import User
from accounts.tests.factories import PASSWORD, AdminFactory, UserFactory
from bookings import clock, services
from bookings.models import BookedCalendar, Booking, BookingEvent
from bookings.reports.kinds import REPORTS
from bookings.services import BookingConflict
from bookings.tally import services as counting
from bookings.tally.models import BookingTally
from bookings.tests.factories import (
    TUESDAY,
    BookingFactory,
    SlotFactory,
    WaitlistEntryFactory,
    WebhookFactory,
)
from bookings.tests.settle import settle
from bookings.tests.workers import database_url, until
from bookings.triggers import EVENT_JOINS_HISTORY
from bookings.waitlist import emails
from bookings.waitlist import services as waitlist
from bookings.webhooks.models import Delivery
from bookit.database.citus import conversion, nodes
from bookit.jobs import outbox
from bookit.jobs.models import Outbox
from bookit.metrics.tests.scraping import samples
from bookit.runtime.servers import BOOKIT, connected_to, production, serving
from bookit.runtime.startup import BASE_DIR
from bookit.runtime.tests.test_frozen_postgres import send_request
from bookit.tests.cluster import WORKERS, Cluster
from bookit.tests.crowd import at_once, tally
from catalog.services import update_service
from catalog.tests.factories import ServiceFactory

cluster = Cluster.running()
pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(cluster is None, reason="needs Citus: pytest --citus PREFIX"),
]

CROWD = 40

# Some quick HTTP tests. `docs/scaling.md` says how to run more tests on a cluster.
HTTP_TESTS = [
    "bookings/tests/test_bookings.py",
    "bookings/tests/test_affected.py",
    "bookings/waitlist/tests/test_waitlist.py",
    "bookings/mails/tests/test_mails.py",
    "bookings/mails/tests/test_limits.py",
    "bookings/webhooks/tests/test_events.py",
    "bookings/slots/tests/test_slots.py",
    "bookings/feeds/tests/test_feeds.py",
    "bookings/diary/tests/test_diary.py",
    "bookings/phone/tests/test_phone.py",
]

# For each app that has new migrations since release 0.1.0: its last migration in that release.
FIRST_RELEASE = {
    "accounts": "0010",
    "bookings": "0019",
    "catalog": "0007",
    "jobs": "0004",
    "mails": "0001",
}

# Finds the server and the shard of a calendar.
PLACE = """
SELECT nodeport, shardid FROM pg_dist_placement JOIN pg_dist_node USING (groupid)
WHERE shardid = get_shard_id_for_distribution_column('bookings_booking', %s)
"""

# Finds the number that Citus gives to a server, as in `BookingEvent.server`.
SERVER = "SELECT groupid FROM pg_dist_node WHERE nodeport = %s"

# Tells whether all servers can be reached.
ALL_REACHABLE = """
SELECT bool_and(citus_check_connection_to_node(nodename, nodeport)) FROM pg_dist_node
"""


def ask(query, values=()):
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        return cursor.fetchall()


def place(service):
    """Return the port of the server that has a service's calendar, and the id of the shard."""
    [found] = ask(PLACE, [service.calendar_id])
    return found


def service_on(name, **options):
    """Return a new service whose calendar is on the worker `name`."""
    while True:
        service = ServiceFactory(requires_confirmation=False, **options)
        if place(service)[0] == cluster.port(name):
            return service


def client_of(user):
    token = AccessToken()
    token["user_id"] = str(user.pk)
    return Client(headers={"authorization": f"Bearer {token}"})


def at(hours):
    return (TUESDAY + timedelta(hours=hours)).isoformat()


def post(client, service, hours):
    """Book a service, `hours` after TUESDAY."""
    body = {"service_id": str(service.pk), "start_time": at(hours)}
    return client.post("/bookings", json.dumps(body), content_type="application/json")


def send(method, path, body):
    """Send JSON, and return the status of the response."""
    return method(path, json.dumps(body), content_type="application/json").status_code


def follow_ups():
    """Return the waiting jobs that follow up events."""
    return ProcrastinateJob.objects.filter(task_name="bookings.follow_up").order_by("id")


def follow_up_what_is_possible():
    """Run the waiting jobs that follow up events once; those that fail stay."""
    for job in follow_ups():
        with suppress(OperationalError):
            app.tasks[job.task_name].func(**job.args)
            ask("DELETE FROM procrastinate_jobs WHERE id = %s RETURNING id", [job.pk])


@contextmanager
def restarted_afterwards(name):
    """Start a server again when the block ends, and wait until all servers can be reached."""
    try:
        yield
    finally:
        cluster.start(name)
        until(lambda: ask(ALL_REACHABLE)[0][0])
        # Close all sessions: they would use the old connections to the server that was killed.
        connection.close()
        connection.close_pool()


@pytest.mark.parametrize("name", ["one", "two"])
def test_one_of_forty_concurrent_bookings_wins_on_each_worker(name):
    for attempt in range(5):
        service = service_on(name)
        users = [UserFactory() for _ in range(CROWD)]
        outcomes = at_once(
            [
                partial(
                    services.create_booking,
                    actor=user,
                    service_id=service.pk,
                    start_time=TUESDAY + timedelta(hours=attempt),
                    at=timezone.now(),
                )
                for user in users
            ]
        )
        assert tally(outcomes) == {None: 1, BookingConflict: CROWD - 1}
        assert Booking.objects.filter(calendar=service.calendar_id).count() == 1


def test_a_booking_is_made_on_the_worker_of_its_calendar_with_its_job_in_the_outbox():
    service = service_on("one")
    response = post(client_of(UserFactory()), service, 1)
    assert response.status_code == 201
    event = BookingEvent.objects.get()
    [(server,)] = ask(SERVER, [place(service)[0]])
    assert event.server == server
    assert not ProcrastinateJob.objects.exists()
    assert Outbox.objects.get().calendar_id == service.calendar_id


def test_the_relay_enqueues_each_job_and_empties_the_outbox():
    users = [UserFactory() for _ in range(6)]
    for name in ("one", "two"):
        service = service_on(name)
        for hours, user in enumerate(users):
            assert post(client_of(user), service, hours).status_code == 201
    assert Outbox.objects.count() == outbox.relay() == 12
    assert not Outbox.objects.exists()
    jobs = ProcrastinateJob.objects.filter(task_name="bookings.follow_up")
    events = {event for job in jobs for event in job.args["event_ids"]}
    assert events == {str(event.pk) for event in BookingEvent.objects.all()}
    assert outbox.relay() == 0


def test_only_the_calendars_of_a_dead_worker_are_unavailable():
    alive, dead = service_on("one"), service_on("two")
    user = UserFactory()
    client = client_of(user)
    assert post(client, dead, 1).status_code == 201
    with restarted_afterwards("two"):
        cluster.kill("two")
        assert [post(client, alive, hours).status_code for hours in range(5)] == [201] * 5
        refused = post(client, dead, 2)
        assert (refused.status_code, refused["Retry-After"] != "") == (503, True)
        # The relay enqueues the jobs in the outboxes of the servers that answer.
        assert outbox.relay() == 5
    assert post(client, dead, 2).status_code == 201
    assert Booking.objects.filter(calendar=alive.calendar_id).count() == 5
    assert Booking.objects.filter(calendar=dead.calendar_id).count() == 2
    outbox.relay()
    jobs = ProcrastinateJob.objects.filter(task_name="bookings.follow_up")
    events = {event for job in jobs for event in job.args["event_ids"]}
    assert events == {str(event.pk) for event in BookingEvent.objects.all()}


@pytest.mark.parametrize(("living", "dying"), [("one", "two"), ("two", "one")])
def test_rows_of_a_living_worker_are_found_by_id_while_another_worker_is_dead(living, dying):
    alive, dead = service_on(living), service_on(dying)
    course = service_on(living, mode="slots")
    slot, other = (SlotFactory(service=each, start_time=TUESDAY) for each in (course, dead))
    client = client_of(UserFactory())
    kept, moved, cancelled, deleted = (
        f"/bookings/{post(client, alive, hours).json()['id']}" for hours in range(4)
    )
    lost = f"/bookings/{post(client, dead, 5).json()['id']}"
    unknown = f"/bookings/{uuid7()}"
    with restarted_afterwards(dying):
        cluster.kill(dying)
        found = client.get(kept)
        assert found.status_code == 200
        assert client.get(f"{kept}/history").status_code == 200
        assert send(client.patch, kept, {"notes": "At the door."}) == 200
        assert send(client.patch, moved, {"start_time": at(8)}) == 200
        assert send(client.patch, cancelled, {"status": "cancelled"}) == 200
        assert client.delete(deleted).status_code == 204
        assert send(client.post, "/bookings", {"slot_id": str(slot.pk)}) == 201
        assert client.get(lost).status_code == 503
        assert send(client.post, "/bookings", {"slot_id": str(other.pk)}) == 503
        assert send(client.patch, lost, {"notes": "Late."}) == 503
        # The dead worker may have a booking with this id.
        assert client.get(unknown).status_code == 503
    assert client.get(lost).json()["notes"] == ""
    assert client.get(unknown).status_code == 404


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("iptables"), reason="needs iptables, as root"
)
@pytest.mark.parametrize(("living", "lost"), [("one", "two"), ("two", "one")])
def test_a_living_worker_is_used_while_the_host_of_another_worker_does_not_answer(
    settings, living, lost
):
    settings.PASSWORD_HASHERS = ["accounts.hashers.Argon2idPasswordHasher"]  # as in production
    here, there = service_on(living), service_on(lost)
    slot = SlotFactory(service=service_on(living, mode="slots"), start_time=TUESDAY)
    credentials = {"email": UserFactory().email, "password": PASSWORD}
    with serving(BOOKIT, production(database_url(), workers=1)) as server:
        server.wait("/health/ready")
        session = send_request(server.port, "POST", "/auth/login", credentials).content
        token = {"Authorization": f"Bearer {session['access_token']}"}

        def respond(method, path, body=None):
            response = send_request(server.port, method, path, body, **token)
            durations.append(response.seconds)
            return response

        def book(service, hours):
            return respond(
                "POST", "/bookings", {"service_id": str(service.pk), "start_time": at(hours)}
            )

        durations = []
        kept, hidden = (f"/bookings/{book(each, 0).content['id']}" for each in (here, there))
        change = partial(respond, "PATCH", kept, {"notes": "At the door."})
        outbox.relay()
        with cluster.unreachable(lost):
            # PostgreSQL sessions that have used the worker before fail once.
            until(lambda: (respond("GET", kept).status, change().status) == (200, 200))
            durations.clear()
            assert respond("GET", kept).content["notes"] == "At the door."
            assert change().status == 200
            assert book(here, 1).status == 201
            assert respond("POST", "/bookings", {"slot_id": str(slot.pk)}).status == 201
            assert send_request(server.port, "POST", "/auth/login", credentials).status == 200
            assert [respond("GET", hidden).status, book(there, 1).status] == [503, 503]
            # Each of at most four connections to the worker is given up after a second.
            assert max(durations) < 5.5
            connection.close()
            connection.close_pool()
            assert outbox.relay() == 3  # one change and two bookings
        until(lambda: respond("GET", hidden).status == 200)
    assert Booking.objects.filter(calendar=here.calendar_id).count() == 2


@pytest.mark.parametrize(("living", "dying"), [("one", "two"), ("two", "one")])
def test_slots_on_a_living_worker_are_shown_while_another_worker_is_dead(living, dying):
    here, there = (
        SlotFactory(service=service_on(name, mode="slots", capacity=3)) for name in (living, dying)
    )
    client = client_of(UserFactory())
    with restarted_afterwards(dying):
        cluster.kill(dying)
        assert send(client.post, "/bookings", {"slot_id": str(here.pk)}) == 201
        for each in (Client(), client):
            assert each.get(f"/slots/{here.pk}").json()["seats_left"] == 2
            [shown] = each.get(f"/slots?calendar_id={here.calendar_id}").json()["results"]
            assert shown["seats_left"] == 2
        assert client.get(f"/slots/{there.pk}").status_code == 503
        assert client.get(f"/slots?calendar_id={there.calendar_id}").status_code == 503
    assert client.get(f"/slots/{there.pk}").json()["seats_left"] == 3


def test_own_bookings_on_a_living_worker_are_listed_while_another_worker_is_dead():
    alive, dead = service_on("two"), service_on("one")
    client, other = client_of(UserFactory()), client_of(UserFactory())
    made = [post(client, alive, hours).json()["id"] for hours in range(2)]
    assert post(other, dead, 1).status_code == 201
    feed = client.get("/me/calendar").json()["address"].removeprefix("http://testserver")
    with restarted_afterwards("one"):
        cluster.kill("one")
        for query in ("", "?cursor=", "?status=pending,confirmed", "?ordering=-created_at"):
            shown = client.get(f"/bookings{query}")
            assert shown.status_code == 200
            assert {row["id"] for row in shown.json()["results"]} == {*made}
        held = {"service_id": str(alive.pk), "start_time": at(5), "hold": True}
        assert send(client.post, "/bookings", held) == 201
        assert client.get(feed).content.count(b"BEGIN:VEVENT") == 2
        assert other.get("/bookings").status_code == 503
    assert len(other.get("/bookings").json()["results"]) == 1
    assert len(client.get("/bookings").json()["results"]) == 3


@pytest.mark.parametrize("name", ["one", "two"])
def test_users_sign_in_while_a_worker_is_dead(name):
    user, admin = UserFactory(), AdminFactory()
    right = {"email": user.email, "password": PASSWORD}
    form = {"username": admin.email, "password": PASSWORD, "next": "/me"}
    assert send(Client().post, "/auth/login", right) == 200
    before = User.objects.get(pk=user.pk).last_login
    with restarted_afterwards(name):
        cluster.kill(name)
        # In the first round, the coordinator's open connection to the dead server breaks. In the
        # second round, the coordinator cannot connect.
        for _ in range(2):
            signed_in = Client().post("/auth/login", json.dumps(right), "application/json")
            assert signed_in.status_code == 200
        token = {"refresh_token": signed_in.json()["refresh_token"]}
        assert send(Client().post, "/auth/refresh", token) == 200
        assert send(Client().post, "/auth/login", {**right, "password": "wrong"}) == 401
        assert Client().post("/admin/login/", form).status_code == 302
        # The time of a login is not stored, because each server has a copy of the users.
        assert User.objects.get(pk=user.pk).last_login == before
    assert send(Client().post, "/auth/login", right) == 200
    assert User.objects.get(pk=user.pk).last_login > before


@pytest.mark.parametrize(("living", "dying"), [("one", "two"), ("two", "one")])
def test_waitlists_on_a_living_worker_work_while_another_worker_is_dead(living, dying):
    slot = SlotFactory(service=service_on(living, mode="slots"), start_time=TUESDAY, capacity=1)
    path = f"/slots/{slot.pk}/waitlist"
    guest, first, second = (client_of(UserFactory()) for _ in range(3))
    passed = WaitlistEntryFactory(slot=slot, user=UserFactory(), status="passed")
    booked = guest.post("/bookings", json.dumps({"slot_id": str(slot.pk)}), "application/json")
    with restarted_afterwards(dying):
        cluster.kill(dying)
        places = [each.post(path, "{}", "application/json").json() for each in (first, second)]
        assert [place["position"] for place in places] == [1, 2]
        assert len(second.get(path).json()["results"]) == 1
        assert second.get(f"{path}/{places[1]['id']}").json()["position"] == 2
        assert send(guest.patch, f"/bookings/{booked.json()['id']}", {"status": "cancelled"}) == 200
        assert waitlist.offer_seats(slot_ids=[str(slot.pk)], at=timezone.now()) == 1
        assert first.delete(f"{path}/{places[0]['id']}").status_code == 204
        assert waitlist.offer_seats(at=timezone.now()) == 1
        offered = second.get(f"{path}/{places[1]['id']}").json()
        assert offered["status"] == "offered"
        assert second.delete(f"{path}/{offered['id']}").status_code == 204
        assert first.post(path, "{}", "application/json").status_code == 409  # A seat is free.
        # A user whose wait has ended gets an email.
        emails.send(entry_id=passed.pk, at=timezone.now())
        assert mail.outbox[-1].to == [passed.user.email]


@pytest.mark.parametrize(("living", "dying"), [("one", "two"), ("two", "one")])
def test_slots_on_a_living_worker_are_changed_while_another_worker_is_dead(living, dying):
    course = service_on(living, mode="slots")
    wider, cancelled, deleted = (
        SlotFactory(service=course, start_time=TUESDAY + timedelta(days=days)) for days in range(3)
    )
    boss = client_of(AdminFactory())
    with restarted_afterwards(dying):
        cluster.kill(dying)
        assert send(boss.patch, f"/slots/{wider.pk}", {"capacity": 9}) == 200
        assert send(boss.patch, f"/slots/{cancelled.pk}", {"status": "cancelled"}) == 200
        assert boss.delete(f"/slots/{deleted.pk}").status_code == 204


@pytest.mark.parametrize(("living", "dying"), [("one", "two"), ("two", "one")])
def test_bookings_of_a_living_worker_change_as_time_passes_while_another_worker_is_dead(
    living, dying
):
    alive, dead = service_on(living), service_on(dying)
    now = timezone.now()
    ended, tomorrow, held, unconfirmed = (
        BookingFactory(service=alive, start_time=start, status=status, updated_at=long_ago)
        for long_ago in [now - timedelta(days=9)]
        for start, status in (
            (now - timedelta(days=3), "confirmed"),
            (now + timedelta(hours=20), "confirmed"),
            (now + timedelta(days=3), "held"),
            (now - timedelta(days=2), "pending"),
        )
    )
    waits = BookingFactory(service=dead, start_time=now - timedelta(days=3), status="confirmed")
    with restarted_afterwards(dying):
        cluster.kill(dying)
        assert clock.complete_bookings(at=now) == 1
        assert clock.expire_bookings(at=held.hold_expires_at) == 2
        assert clock.send_reminders(at=now) == 1
        assert clock.send_reminders(at=now) == 0
        states = {row.pk: row.status for row in Booking.objects.filter(calendar=alive.calendar_id)}
    assert states == {
        ended.pk: "completed",
        tomorrow.pk: "confirmed",
        held.pk: "expired",
        unconfirmed.pk: "expired",
    }
    assert clock.complete_bookings(at=now) == 1
    waits.refresh_from_db()
    assert waits.status == "completed"


def test_emails_about_bookings_on_a_living_worker_are_sent_while_another_worker_is_dead():
    alive, dead = service_on("two"), service_on("one")
    webhook = WebhookFactory(created_at=timezone.now() - timedelta(hours=1))
    client = client_of(UserFactory())
    assert post(client, dead, 1).status_code == 201
    with restarted_afterwards("one"):
        cluster.kill("one")
        assert post(client, alive, 2).status_code == 201
        outbox.relay()
        follow_up_what_is_possible()
        assert ProcrastinateJob.objects.filter(task_name="bookings.send_mail").count() == 1
        waiting = [job.args for job in follow_ups() if job.args.get("only_webhooks")]
        assert len(waiting) == 1
    outbox.relay()
    follow_up_what_is_possible()
    assert not follow_ups()
    assert Delivery.objects.filter(webhook=webhook).count() == 2
    assert ProcrastinateJob.objects.filter(task_name="bookings.send_mail").count() == 2


def test_the_home_page_and_the_reports_count_bookings_on_all_workers():
    user, now = UserFactory(), timezone.now()
    for name in ("one", "two"):
        service = service_on(name)
        for hours in range(1, 3):
            BookingFactory(
                user=user,
                service=service,
                start_time=now - timedelta(hours=hours),
                status="completed",
                created_at=now - timedelta(days=2),
                price=20,
                currency="USD",
            )
    admin, site = AdminFactory(), Client()
    site.force_login(admin)
    cards = {each["name"]: each["shown"] for each in site.get("/admin/").context["cards"]}
    numbers = {each["label"]: each["now"] for each in cards["recent"]["numbers"]}
    assert (numbers["Bookings"], numbers["Revenue"]) == ("4", "80.00 USD")
    assert len(cards["recent"]["services"]) == 2

    period = f"from={now - timedelta(days=1):%Y-%m-%d}&to={now:%Y-%m-%d}"
    totals = {
        name: client_of(admin).get(f"/reports/{name}?{period}").json()["totals"] for name in REPORTS
    }
    assert totals["customers"] == {"customers": 1, "new": 1, "returning": 0}
    assert totals["utilisation"]["bookings"] == totals["cancellations"]["bookings"] == 4
    assert totals["lead_time"]["bookings"] == 4
    assert totals["revenue"]["currencies"][0]["bookings"] == 4
    assert totals["reviews"]["reviews"] == 0


def test_distribute_records_on_which_calendars_users_have_booked():
    client = client_of(UserFactory())
    assert post(client, service_on("one"), 1).status_code == 201
    BookedCalendar.objects.all().delete()
    assert client.get("/bookings").json()["results"] == []
    call_command("distribute")
    assert len(client.get("/bookings").json()["results"]) == 1


def test_bookings_succeed_while_their_shard_moves():
    service = service_on("one", duration_minutes=10)
    user = UserFactory()
    booked, refused, stop = [], Counter(), threading.Event()

    def book():
        number = 0
        while not stop.is_set() or number < 40:
            number += 1
            try:
                made = services.create_booking(
                    actor=user,
                    service_id=service.pk,
                    start_time=TUESDAY + timedelta(minutes=10 * number),
                    at=timezone.now(),
                )
                booked.append(made.pk)
            except Exception as error:
                refused[type(error).__name__] += 1

    def move():
        _, shard = place(service)
        # This connection has no statement timeout, because a move takes longer.
        with psycopg.connect(database_url(), autocommit=True) as session:
            try:
                session.execute(
                    "SELECT citus_move_shard_placement(%s, '127.0.0.1', %s, '127.0.0.1', %s)",
                    [shard, cluster.port("one"), cluster.port("two")],
                )
            finally:
                stop.set()

    outcomes = at_once([book, move])
    assert [each.error for each in outcomes] == [None, None]
    assert place(service)[0] == cluster.port("two")
    assert refused == {}
    stored = Booking.objects.filter(calendar=service.calendar_id)
    assert {booking.pk for booking in stored} == {*booked}
    created = BookingEvent.objects.filter(calendar=service.calendar_id, type="booking.created")
    assert sorted(each.booking_id for each in created) == sorted(booked)
    # Events still name the server that wrote them, so no reader of /events misses an event.
    assert {event.server for event in created} >= {ask(SERVER, [cluster.port("one")])[0][0]}


# Finds the function that the trigger `booking_occupies` calls on a shard of bookings.
TRIGGER_FUNCTION = """
SELECT result FROM run_command_on_placements('bookings_booking', $$
    SELECT tgfoid::regproc FROM pg_trigger
    WHERE tgrelid = '%%s'::regclass AND tgname ~ 'booking_occupies_\\d'
$$) WHERE shardid = %s
"""


def test_a_booking_waits_while_its_shard_is_about_to_move():
    service = service_on("one")
    client = client_of(UserFactory())
    shard = place(service)[1]
    database = cluster.url("one", connection.settings_dict["NAME"])
    with (
        psycopg.connect(database) as mover,
        psycopg.connect(database, autocommit=True) as watcher,
        ThreadPoolExecutor() as pool,
    ):
        # Citus takes this lock before it copies the last changes of a shard. 7 is an ExclusiveLock.
        mover.execute("SELECT lock_shard_metadata(7, ARRAY[%s::bigint])", [shard])
        booking = pool.submit(post, client, service, 1)
        until(lambda: watcher.execute("SELECT FROM pg_locks WHERE NOT granted").fetchall())
        assert not booking.done()
        mover.commit()
        assert booking.result().status_code == 201


def test_a_function_that_runs_on_a_server_without_the_shard_asks_the_server_that_has_it():
    service = service_on("one")
    # Citus runs a function on the coordinator itself if the call is only a part of a statement.
    query = "WITH own AS MATERIALIZED (SELECT * FROM lock_to_book(%s, '{}')) SELECT * FROM own"
    assert ask(query, [service.calendar_id]) == [(True,)]
    assert ask(query, [uuid7()]) == [(False,)]


def test_a_shard_that_has_moved_runs_its_own_functions_after_distribute():
    service = service_on("one")
    shard = place(service)[1]
    assert ask(TRIGGER_FUNCTION, [shard]) == [(f"booking_occupies_{shard}",)]
    with psycopg.connect(database_url(), autocommit=True) as session:
        session.execute(
            "SELECT citus_move_shard_placement(%s, '127.0.0.1', %s, '127.0.0.1', %s)",
            [shard, cluster.port("one"), cluster.port("two")],
        )
    assert ask(TRIGGER_FUNCTION, [shard]) == [("booking_occupies",)]
    client = client_of(UserFactory())
    assert post(client, service, 1).status_code == 201
    assert post(client, service, 1).status_code == 409
    call_command("distribute")
    assert ask(TRIGGER_FUNCTION, [shard]) == [(f"booking_occupies_{shard}",)]
    assert post(client, service, 2).status_code == 201


def test_events_of_all_workers_are_read_once_each():
    admin = client_of(AdminFactory())
    user = client_of(UserFactory())
    here, there = service_on("one"), service_on("two")
    for hours in range(3):
        for service in (here, there):
            assert post(user, service, hours).status_code == 201
    settle()
    seen, cursor = [], ""
    for _ in range(20):
        page = admin.get(f"/events?limit=2&cursor={cursor}").json()
        seen += [event["id"] for event in page["results"]]
        cursor = page["cursor"]
        if not page["next"]:
            break
    assert seen == sorted(str(event.pk) for event in BookingEvent.objects.all())
    assert post(user, here, 10).status_code == 201
    settle()
    found = []
    for _ in range(3):
        page = admin.get(f"/events?limit=2&cursor={cursor}").json()
        found += page["results"]
        cursor = page["cursor"]
    assert len(found) == 1


def test_bookings_on_all_workers_are_counted_once_each():
    user = client_of(UserFactory())
    here, there = service_on("one"), service_on("two")
    for hours in range(3):
        for service in (here, there):
            assert post(user, service, hours).status_code == 201
    assert counting.totals()["confirmed"] == 6
    # Version 0.1.0 stored a wrong total, without positions on the workers.
    wrong = {"transaction": 7, "counts": {"confirmed": 5}, "positions": {}}
    BookingTally.objects.update_or_create(pk=1, defaults=wrong)
    assert counting.totals()["confirmed"] == 6
    settle()
    assert counting.count_events() == 6
    assert {*BookingTally.objects.get().positions} == {"1", "2"}
    assert post(user, here, 10).status_code == 201
    assert counting.totals()["confirmed"] == 7
    settle()
    assert counting.count_events() == 1
    assert counting.count_events() == 0
    assert counting.totals()["confirmed"] == 7


def test_changed_terms_increase_the_version_of_the_calendar_once_on_every_server():
    service = service_on("one")
    before = ask("SELECT version FROM catalog_calendar WHERE id = %s", [service.calendar_id])
    update_service(service_id=service.pk, actor=AdminFactory(), changes={"duration_minutes": 30})
    after = ask("SELECT version FROM catalog_calendar WHERE id = %s", [service.calendar_id])
    assert after[0][0] == before[0][0] + 1
    # Every server has a copy of the calendar.
    copies = ask(
        "SELECT DISTINCT result FROM run_command_on_placements('catalog_calendar',"
        " format('SELECT version FROM %%%%s WHERE id = %%L', %s::text))",
        [str(service.calendar_id)],
    )
    assert copies == [(str(after[0][0]),)]


@pytest.mark.parametrize("name", ["one", "two"])
def test_the_home_page_shows_what_it_can_read_while_a_worker_is_dead(name):
    site = Client()
    site.force_login(AdminFactory())
    everything = {each["name"] for each in site.get("/admin/").context["cards"]}
    with restarted_afterwards(name):
        cluster.kill(name)
        for _ in range(2):
            page = site.get("/admin/")
            assert page.status_code == 200
            assert "The database is not available." in page.content.decode()
            assert {each["name"] for each in page.context["cards"]} == everything - {
                *("today", "next", "waiting", "recent", "slots")
            }
    page = site.get("/admin/")
    assert "The database is not available." not in page.content.decode()
    assert {each["name"] for each in page.context["cards"]} == everything


def test_metrics_that_do_not_need_a_dead_worker_are_shown(client):
    def scraped():
        return {name for name, *_labels in samples(client.get("/metrics").content.decode())}

    everything = scraped()
    assert "bookit_bookings_total" in everything
    with restarted_afterwards("two"):
        cluster.kill("two")
        for _ in range(2):
            assert everything - scraped() == {"bookit_bookings_total"}
            assert samples(client.get("/metrics").content.decode())[("bookit_database_up",)] == 1
    assert scraped() == everything


def test_commands_say_which_server_is_down():
    name = f"127.0.0.1:{cluster.port('two')}"
    with restarted_afterwards("two"):
        cluster.kill("two")
        for _ in range(2):  # The open connection breaks first; then, a new one is refused.
            with pytest.raises(CommandError, match=f"{name} cannot be reached.\nNothing was"):
                call_command("migrate", verbosity=0)
        environment = {**os.environ, "DATABASE_URL": database_url()}
        done = subprocess.run(
            [sys.executable, str(BASE_DIR / "manage.py"), "export_records", "-"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("bookit: PostgreSQL cannot be reached: connection to the remote")
    assert done.stderr.count("\n") == 1
    assert name in done.stderr
    call_command("migrate", verbosity=0)


def test_a_distributed_database_is_neither_backed_up_nor_replaced(tmp_path):
    BookingFactory()
    file = tmp_path / "backup"
    for target in (str(file), "-"):
        with pytest.raises(CommandError, match="cannot back up a distributed database"):
            call_command("backup", target)
    assert not file.exists()
    file.write_bytes(b"")
    for options in ([], ["--clean"]):
        with pytest.raises(CommandError, match=r"belongs to a Citus cluster.*manage\.py distri"):
            call_command("restore", *options, str(file))
    assert Booking.objects.count() == 1


def test_a_dump_of_the_coordinator_is_not_restored(tmp_path):
    file = tmp_path / "dump"
    command = [str(cluster.prefix / "bin" / "pg_dump"), "--format=custom", "--file", str(file)]
    subprocess.run([*command, database_url()], check=True)
    with new_database("target"):
        with pytest.raises(CommandError, match="it is a backup of a distributed database"):
            call_command("restore", str(file))
        assert connection.introspection.table_names() == []


def test_a_backup_of_one_server_is_restored_into_a_cluster_and_distributed(tmp_path):
    file = tmp_path / "backup"
    with new_database("source"):
        call_command("migrate", verbosity=0)
        booking = BookingFactory()
        call_command("backup", str(file), verbosity=0)
    with new_database("target"):
        call_command("restore", str(file))
        cluster.distribute("target")
        connection.close()
        connection.close_pool()
        assert Booking.objects.get().pk == booking.pk
        user = UserFactory()
        assert post(client_of(user), service_on("two"), 1).status_code == 201
        assert outbox.relay() == 1


def test_a_replica_of_the_coordinator_answers_reads_of_the_catalog(settings):
    settings.PASSWORD_HASHERS = ["accounts.hashers.Argon2idPasswordHasher"]  # as in production
    here, there = (service_on(name, mode="slots", capacity=3) for name in WORKERS)
    SlotFactory(service=here, start_time=TUESDAY)
    slot = str(SlotFactory(service=there, start_time=TUESDAY).pk)
    name = cluster.add_replica()
    try:
        environment = {
            **production(database_url(), workers=1),
            "DATABASE_REPLICA_URL": cluster.url(name, connection.settings_dict["NAME"]),
        }
        with serving(BOOKIT, environment) as server:
            server.wait("/health/ready")

            def metric(*key):
                page = send_request(server.port, "GET", "/metrics").content.decode()
                return samples(page).get(key, 0)

            def seats(service, **headers):
                path = f"/slots?service_id={service.pk}&calendar_id={service.calendar_id}"
                shown = send_request(server.port, "GET", path, **headers)
                return shown.content["results"][0]["seats_left"] if shown.status == 200 else None

            until(lambda: metric("bookit_replica_in_use", "replica1") == 1)
            assert (seats(here), seats(there)) == (3, 3)
            assert metric("bookit_catalog_reads_total", "replica") == 2
            for left in (2, 1):
                credentials = {"email": UserFactory().email, "password": PASSWORD}
                session = send_request(server.port, "POST", "/auth/login", credentials).content
                token = {"Authorization": f"Bearer {session['access_token']}"}
                made = send_request(server.port, "POST", "/bookings", {"slot_id": slot}, **token)
                assert made.status == 201
                # The replica reads the rows of calendars from the workers, so it never lags.
                assert (seats(there), seats(there, **token)) == (left, left)
            with restarted_afterwards("two"):
                cluster.kill("two")
                assert (seats(here), seats(there)) == (3, None)
            until(lambda: seats(there) == 1)
            until(lambda: metric("bookit_replica_in_use", "replica1") == 1)
    finally:
        cluster.kill(name)


@contextmanager
def new_database(name):
    """Use an empty database on the coordinator, which is not distributed."""
    with psycopg.connect(cluster.url(), autocommit=True) as session:
        session.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        session.execute(f"CREATE DATABASE {name}")
    with cluster.connected(name):
        yield


def test_distribute_has_nothing_to_do_if_the_database_is_distributed(capsys):
    call_command("distribute", "--check")
    assert capsys.readouterr().out.startswith("Nothing was changed.\n")


def test_a_distributed_database_of_the_first_release_can_be_migrated(monkeypatch):
    # `distribute` would refuse a database without the migrations since that release.
    monkeypatch.setattr(conversion, "problems", list)
    with psycopg.connect(cluster.url(), autocommit=True) as session:
        session.execute("DROP DATABASE IF EXISTS upgraded WITH (FORCE)")
        session.execute("CREATE DATABASE upgraded")
    with connected_to(cluster.url(database="upgraded")):
        call_command("migrate", verbosity=0)
        for app, name in FIRST_RELEASE.items():
            call_command("migrate", app, name, verbosity=0)
        nodes.is_distributed.cache_clear()
        try:
            cluster.distribute("upgraded")
            connection.close()  # Only new sessions have the settings of the distributed database.
            connection.close_pool()
            call_command("migrate", verbosity=0)
            ServiceFactory(title="Cut/Colour")
            assert conversion.steps() == []
        finally:
            connection.close()
            nodes.is_distributed.cache_clear()
    for name in WORKERS:
        with psycopg.connect(cluster.url(name, "upgraded"), autocommit=True) as session:
            [words] = session.execute("SELECT title_words::text FROM catalog_service").fetchall()
            assert words == ("'colour':2 'cut':1",)
            # The triggers of shards run new copies of a function that a migration has changed.
            copies = session.execute(
                "SELECT proname, prosrc FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid"
                " WHERE tgname ~ '^booking_event_joins_history_[0-9]'"
            ).fetchall()
            assert copies
            for name, body in copies:
                assert name != EVENT_JOINS_HISTORY.name
                assert "NEW.at :=" in body


def test_a_second_booking_of_the_same_time_is_refused():
    service = service_on("two")
    first = post(client_of(UserFactory()), service, 1)
    assert first.status_code == 201
    with pytest.raises(BookingConflict):
        services.create_booking(
            actor=UserFactory(),
            service_id=service.pk,
            start_time=TUESDAY + timedelta(hours=1),
            at=timezone.now(),
        )


def test_the_http_tests_pass_on_a_cluster():
    options = ["-n0", "--no-header", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *HTTP_TESTS],
        # These tests need a database of their own.
        env={**os.environ, "BOOKIT_TEST_DATABASE_URL": cluster.url(database="http_tests")},
        cwd=BASE_DIR,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
