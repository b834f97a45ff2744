"""With Redis, all hosts count together. While Redis is down, hardly any request waits for it."""

import logging
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from limits import RateLimitItemPerDay
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from bookit.ratelimits import redis
from bookit.ratelimits.host import HostCounts
from bookit.ratelimits.redis import RedisCounts
from bookit.ratelimits.tests import redis_server

pytestmark = redis_server.needs_redis

LONG = 24 * 3600


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Run a Redis server for all tests of this module. A test may leave it stopped or frozen."""
    with redis_server.running(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def server(program):
    """Return a running and empty Redis server."""
    if not program.is_running():
        program.start()
    program.thaw()
    program.client.config_set("min-replicas-to-write", 0)
    program.client.flushall()
    return program


@pytest.fixture
def short_pause(monkeypatch):
    """Shorten the pause between two attempts to reach Redis, so that the tests are fast."""
    monkeypatch.setattr(redis, "PAUSE", 0.05)


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def passed(hosts, limit, requests=40):
    """Let several hosts count requests at the same time, and return how many requests pass."""
    with ThreadPoolExecutor(8) as threads:
        results = threads.map(
            lambda number: hosts[number % len(hosts)].hit("ada", limit, LONG)[0], range(requests)
        )
        return Counter(results)[True]


def test_two_hosts_together_allow_ten_of_forty_requests(server):
    hosts = [RedisCounts(server.url, HostCounts()) for _ in range(2)]
    for _ in range(3):
        assert passed(hosts, 10) == 10
        hosts[0].reset()


def test_two_hosts_without_redis_let_twice_as_many_requests_pass():
    """Control for the test above: each host counts for itself."""
    assert passed([HostCounts(), HostCounts()], 10) == 20


def test_the_counts_equal_those_of_the_limits_library(server):
    counts = RedisCounts(server.url, HostCounts())
    limiter = SlidingWindowCounterRateLimiter(RedisStorage(server.url))
    item = RateLimitItemPerDay(3)
    for _ in range(5):
        allowed, window = counts.hit("ada", 3, LONG)
        assert allowed == limiter.hit(item, "ada")
        assert window.remaining(3) == limiter.get_window_stats(item, "ada").remaining
        assert window.left == pytest.approx(LONG, abs=10)


def test_requests_of_the_previous_window_count_only_in_part(server):
    counts = RedisCounts(server.url, HostCounts())
    assert [counts.hit("ada", 5, 1)[0] for _ in range(6)] == [True] * 5 + [False]
    wait_until(lambda: counts.hit("ada", 5, 1)[0])
    # If the previous window did not count, these four requests would also pass.
    results = [counts.hit("ada", 5, 1) for _ in range(4)]
    assert not all(allowed for allowed, _ in results)
    _, window = results[-1]
    assert (window.previous, window.length) == (5, 1)
    assert 0 < window.left < 1


def test_clear_forgets_the_requests_of_a_client(server):
    counts = RedisCounts(server.url, HostCounts())
    assert [counts.hit("ada", 1, LONG)[0] for _ in range(2)] == [True, False]
    counts.clear("ada")
    assert counts.hit("ada", 1, LONG)[0]


def test_counts_expire_in_redis_within_two_windows(server):
    counts = RedisCounts(server.url, HostCounts())
    counts.hit("ada", 5, LONG)
    keys = server.client.keys()
    assert keys
    assert all(0 < server.client.ttl(key) <= 2 * LONG for key in keys)


def test_the_host_counts_requests_while_redis_is_down(server, short_pause, caplog):
    caplog.set_level(logging.INFO, logger=redis.__name__)
    counts = RedisCounts(server.url, HostCounts())
    assert counts.hit("ada", 3, LONG)[1].current == 1
    server.kill()
    # The host itself counts, from 0 and with the full limit.
    began = time.monotonic()
    assert [counts.hit("ada", 2, LONG)[0] for _ in range(3)] == [True, True, False]
    counts.clear("ada")
    assert [counts.hit("ada", 2, LONG)[0] for _ in range(3)] == [True, True, False]
    assert time.monotonic() - began < 1
    assert counts.is_down
    server.start()
    wait_until(lambda: not counts.is_down)
    assert [counts.hit("ada", 3, LONG)[0] for _ in range(4)] == [True, True, True, False]
    levels = [record.levelname for record in caplog.records]
    assert levels == ["WARNING", "INFO"]


def test_only_one_request_waits_for_a_frozen_redis_and_only_once(server, short_pause, monkeypatch):
    # So long that even on a busy machine, one wait takes less time than two.
    monkeypatch.setattr(redis, "PATIENCE", 1.0)
    counts = RedisCounts(server.url, HostCounts())
    assert counts.hit("ada", 9, LONG)[1].current == 1
    server.freeze()
    began = time.monotonic()
    assert counts.hit("ada", 9, LONG)[0]
    first = time.monotonic() - began
    began = time.monotonic()
    for _ in range(100):
        counts.hit("eve", 1000, LONG)
    others = time.monotonic() - began
    assert redis.PATIENCE <= first < 2 * redis.PATIENCE
    # The machine may be busy, but a hundred waits would take 100 seconds.
    assert others < 1
    server.thaw()
    wait_until(lambda: not counts.is_down)
    # Redis may have counted the request that timed out.
    assert counts.hit("ada", 9, LONG)[1].current in (2, 3)


def test_without_the_fallback_every_request_waits_for_a_frozen_redis(server, monkeypatch):
    """Control for the test above: requests continue to use Redis."""
    monkeypatch.setattr(RedisCounts, "_fall_back", lambda self, error: None)
    counts = RedisCounts(server.url, HostCounts())
    counts.hit("ada", 9, LONG)
    server.freeze()
    began = time.monotonic()
    for _ in range(3):
        counts.hit("ada", 9, LONG)
    assert time.monotonic() - began >= 3 * redis.PATIENCE


def test_a_redis_that_refuses_writes_is_treated_as_down(server, short_pause):
    counts = RedisCounts(server.url, HostCounts())
    server.client.config_set("min-replicas-to-write", 1)
    assert [counts.hit("ada", 1, LONG)[0] for _ in range(2)] == [True, False]
    assert counts.is_down
    time.sleep(4 * redis.PAUSE)
    assert counts.is_down
    server.client.config_set("min-replicas-to-write", 0)
    wait_until(lambda: not counts.is_down)


def test_a_host_warns_once_a_minute(server, short_pause, caplog, monkeypatch):
    host = HostCounts()
    processes = [RedisCounts(server.url, host) for _ in range(3)]
    server.kill()
    for counts in processes:
        counts.hit("ada", 9, LONG)
    time.sleep(5 * redis.PAUSE)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Redis cannot be used (ConnectionError)" in caplog.text
    # A minute later, there is another warning, even if no request arrives.
    monkeypatch.setattr(redis, "WARNING_PAUSE", 0.0)
    wait_until(lambda: len(caplog.records) > 1)
    server.start()
    wait_until(lambda: not any(counts.is_down for counts in processes))


def test_the_first_request_after_a_restart_of_redis_is_counted_in_redis(server):
    counts = RedisCounts(server.url, HostCounts())
    counts.hit("ada", 9, LONG)
    server.kill()
    server.start()
    assert counts.hit("ada", 9, LONG)[1].current == 1
    assert not counts.is_down
