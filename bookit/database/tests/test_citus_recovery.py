"""Point-in-time recovery of a Citus cluster, as `docs/scaling.md` describes it."""

import os
from datetime import timedelta

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from accounts.tests.factories import UserFactory
from bookings import services
from bookings.models import Booking, BookingEvent
from bookings.services import BookingConflict
from bookings.tests.factories import TUESDAY
from bookings.tests.workers import until
from bookit.tests.cluster import NAMES, VARIABLE, WORKERS, Cluster
from catalog.tests.factories import ServiceFactory

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(Cluster.running() is None, reason="needs Citus: pytest --citus PREFIX"),
]

# Finds the port of the server that has the bookings of a calendar.
PLACE = """
SELECT nodeport FROM pg_dist_placement JOIN pg_dist_node USING (groupid)
WHERE shardid = get_shard_id_for_distribution_column('bookings_booking', %s)
"""
POINT = "before_the_accident"


@pytest.fixture
def town(monkeypatch):
    """A cluster that only this test uses, with the distributed database `town`."""
    running = Cluster.running()
    # `create` and `destroy` change the variable, which names the cluster of the other tests.
    # `monkeypatch` restores it.
    monkeypatch.setenv(VARIABLE, os.environ[VARIABLE])
    cluster = Cluster.create(running.prefix)
    try:
        with psycopg.connect(cluster.url(), autocommit=True) as session:
            session.execute("CREATE DATABASE town")
        with cluster.connected("town"):
            call_command("migrate", verbosity=0)
            cluster.distribute("town")
        yield cluster
    finally:
        cluster.destroy()


def ask(query, values=()):
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        return cursor.fetchall()


def service_on(port):
    """Return a new service whose calendar is on the worker with this port."""
    while True:
        service = ServiceFactory(requires_confirmation=False)
        if ask(PLACE, [service.calendar_id]) == [(port,)]:
            return service


def book(service, hours):
    return services.create_booking(
        actor=UserFactory(),
        service_id=service.pk,
        start_time=TUESDAY + timedelta(hours=hours),
        at=timezone.now(),
    )


def test_all_servers_are_recovered_to_the_same_restore_point(town):
    with town.connected("town"):
        on_workers = [service_on(town.port(name)) for name in WORKERS]
        kept = [book(service, 1).pk for service in on_workers]
        for name in NAMES:
            town.back_up(name)
        kept += [book(service, 2).pk for service in on_workers]
        ask("SELECT citus_create_restore_point(%s)", [POINT])
        lost = UserFactory()
        for service in on_workers:
            book(service, 3)

    for name in NAMES:
        town.archive(name)
        town.kill(name)
    for name in NAMES:
        town.recover(name, POINT)
    for name in NAMES:
        with psycopg.connect(town.url(name), autocommit=True) as session:
            until(lambda: session.execute("SELECT pg_is_in_recovery()").fetchone() == (False,))

    with town.connected("town"):
        assert {*Booking.objects.values_list("pk", flat=True)} == {*kept}
        assert {*BookingEvent.objects.values_list("booking_id", flat=True)} == {*kept}
        assert not type(lost).objects.filter(pk=lost.pk).exists()
        for service in on_workers:
            with pytest.raises(BookingConflict):
                book(service, 2)
            book(service, 3)
