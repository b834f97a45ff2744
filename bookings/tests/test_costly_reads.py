"""Expensive reads leave threads free for other requests."""

from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import psycopg
import pytest
from django.db import connection

from bookings.tests.factories import SlotFactory
from bookit.runtime.costly import Turns, may_cost_much
from bookit.runtime.servers import production, serving
from bookit.tests.crowd import until_waiting

CLIENTS = 8


def get(port, path):
    client = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        client.request("GET", path, headers={"Host": "localhost"})
        response = client.getresponse()
        response.read()
        return response.status
    finally:
        client.close()


@pytest.fixture
def url(transactional_db):
    found = connection.settings_dict
    return "postgresql://{USER}:{PASSWORD}@{HOST}:{PORT}/{NAME}".format(**found)


@pytest.mark.parametrize(
    ("method", "path", "is_expensive"),
    [
        ("GET", "/availability?service_id=a", True),
        ("HEAD", "/availability?service_id=a", True),
        ("GET", "/services/01940000-000e-7000-8063-000000000000/availability", True),
        ("GET", "/services/01940000-000e-7000-8063-000000000000/avail%61bility", True),
        ("GET", "/services?available_from=2030-01-01&available_to=2030-01-02", True),
        ("GET", "/services?limit=5&%61vailable_from=2030-01-01", True),
        ("GET", "/services?q=yoga", True),
        ("GET", "/services?q%3Dyoga&q=yoga", True),
        ("GET", "/slots?available=true", True),
        ("GET", "/me/calendar.ics?token=a", True),
        ("GET", "/reports/revenue", True),
        ("GET", "/slots?service_id=a", False),
        ("GET", "/services?frq=yoga", False),
        ("GET", "/services", False),
        ("GET", "/services/01940000-000e-7000-8063-000000000000", False),
        ("GET", "/bookings", False),
        ("POST", "/bookings", False),
        ("GET", "/availability/no", False),
        ("GET", "", False),
    ],
)
def test_expensive_reads_are_recognised(method, path, is_expensive):
    path, _, query = path.partition("?")
    assert may_cost_much(method, path, query) is is_expensive


def test_waiting_requests_take_their_turns_in_order():
    turns = Turns(2)
    assert [turns.take(number, "a") for number in range(5)] == [True, True, False, False, False]
    assert [turns.give_back() for _ in range(4)] == [2, 3, 4, None]
    assert turns.take("another", "a")
    assert [turns.give_back(), turns.give_back()] == [None, None]
    assert [turns.take(number, "a") for number in range(3)] == [True, True, False]


def test_waiting_groups_get_one_turn_after_the_other():
    turns = Turns(1)
    for item in ("a1", "a2", "a3", "a4", "b1", "b2", "c1"):
        turns.take(item, item[0])
    found = [turns.give_back() for _ in range(7)]
    assert found == ["a2", "b1", "c1", "a3", "b2", "a4", None]


def test_if_too_many_wait_the_newest_of_the_largest_group_is_removed():
    turns = Turns(1)
    for item in ("a1", "a2", "b1", "b2", "b3", "c1"):
        turns.take(item, item[0])
    assert [turns.excess(3) for _ in range(3)] == ["b3", "b2", None]
    removed = turns.excess(2)
    assert removed in ("a2", "b1", "c1")
    left = [each for each in ("a2", "b1", "c1") if each != removed]
    assert [turns.give_back() for _ in range(3)] == [*left, None]


@pytest.mark.parametrize(
    ("path", "are_expensive"),
    [
        ("/availability?service_id={service}", True),
        # Control: reads that do not count as expensive occupy every thread until they time out.
        ("/slots", False),
    ],
)
def test_eight_expensive_reads_do_not_delay_a_read_of_one_service(url, path, are_expensive):
    slot = SlotFactory()
    path = path.format(service=slot.service_id)
    one_service = f"/services/{slot.service_id}"
    environment = {**production(url, workers=1), "WEB_THREADS": "4", "ANON_TIMEOUT_MS": "1000"}
    with (
        serving("bookit.wsgi", environment) as server,
        psycopg.connect(url) as lock,
        ThreadPoolExecutor(CLIENTS) as clients,
    ):
        server.wait("/health")
        assert (get(server.port, path), get(server.port, one_service)) == (200, 200)
        # From now on, every read of slots waits until its timeout.
        lock.execute("LOCK TABLE bookings_slot")
        reads = [clients.submit(get, server.port, path) for _ in range(CLIENTS)]
        # Expensive reads get at most half of the four threads.
        until_waiting(2 if are_expensive else 4)
        assert get(server.port, one_service) == 200
        finished = [each for each in reads if each.done()]
        assert bool(finished) is not are_expensive
        lock.rollback()
        assert {each.result() for each in reads} <= {200, 503}
