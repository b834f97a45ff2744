"""A flood of sign-ins occupies only one thread of a web process."""

from types import SimpleNamespace

import pytest

from bookit.ratelimits import counting
from bookit.runtime.costly import Turns
from bookit.runtime.floods import is_flood
from bookit.runtime.worker import Worker

FLOODER = ("192.0.2.7", 50000)


@pytest.fixture(autouse=True)
def known_flooder(settings):
    """Let the client at 192.0.2.7 exceed the limit on sign-ins."""
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "auth": "1/day"}
    counting.reset()
    assert [counting.count("auth", "192.0.2.7").allowed for _ in range(2)] == [True, False]


def request(method="POST", path="/auth/login", **headers):
    pairs = [(name.upper().replace("_", "-"), value) for name, value in headers.items()]
    return SimpleNamespace(method=method, path=path, query="", headers=pairs)


def test_a_sign_in_of_a_refused_client_is_a_flood():
    assert is_flood(request(), FLOODER)
    assert is_flood(request(path="/admin/login/"), FLOODER)


@pytest.mark.parametrize(
    ("sent", "peer"),
    [
        (request(), ("192.0.2.8", 50000)),
        (request(method="GET"), FLOODER),
        (request(path="/services"), FLOODER),
        (request(path="/bookings"), FLOODER),
        (request(), "/run/socket"),
    ],
)
def test_other_requests_and_other_clients_are_not_a_flood(sent, peer):
    assert not is_flood(sent, peer)


def test_a_sign_in_of_a_client_that_was_never_refused_is_not_a_flood():
    counting.reset()
    assert not is_flood(request(), FLOODER)


def test_clients_behind_a_proxy_are_distinguished(settings):
    settings.NUM_PROXIES = 1
    proxy = ("10.0.0.1", 50000)
    assert is_flood(request(x_forwarded_for="192.0.2.7"), proxy)
    assert is_flood(request(x_forwarded_for="192.0.2.9, 192.0.2.7"), proxy)
    assert not is_flood(request(x_forwarded_for="192.0.2.7, 192.0.2.9"), proxy)
    assert not is_flood(request(), proxy)


def test_all_addresses_of_an_ipv6_subnet_are_one_client():
    for _ in range(2):
        counting.count("auth", "2001:db8:0:7::/64")
    assert is_flood(request(), ("2001:db8:0:7::9", 50000, 0, 0))
    assert not is_flood(request(), ("2001:db8:0:8::9", 50000, 0, 0))


def test_a_flood_gets_one_thread_and_does_not_delay_other_requests():
    submitted = []
    worker = object.__new__(Worker)
    worker.worker_connections = 4
    worker.costly_turns, worker.refusal_turns = Turns(2), Turns(1)
    worker.tpool = SimpleNamespace(submit=lambda handle, client: submitted.append(client))
    worker.respond = lambda client: None

    def arrive(name, sent):
        client = SimpleNamespace(name=name, request=sent, client=FLOODER, is_refused=False, large=0)
        worker.enqueue_req(client)

    for number in range(3):
        arrive(f"flood {number}", request())
    arrive("services", request(method="GET", path="/services"))
    assert [client.name for client in submitted] == ["flood 0", "services"]
    for client in submitted:  # `handle` appends clients during the loop.
        worker.handle(client)
    assert [client.name for client in submitted] == ["flood 0", "services", "flood 1", "flood 2"]
