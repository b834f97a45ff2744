"""All processes of a real web server enforce a limit together."""

import http.client
import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import median

from bookit.ratelimits import redis
from bookit.ratelimits.host import HostCounts
from bookit.ratelimits.redis import RedisCounts
from bookit.ratelimits.tests import redis_server
from bookit.runtime.servers import BOOKIT, production, serving

# The requests of these tests need no database.
UNREACHABLE = "postgresql://nobody@127.0.0.1:1/nothing"


@contextmanager
def web(**environment):
    """Run gunicorn with two workers, and with no rate limits except those in `environment`."""
    with serving(BOOKIT, {**production(UNREACHABLE), "WEB_THREADS": "4", **environment}) as server:
        server.wait("/health")
        yield server


def send(port, method="POST", path="/auth/login", body="{}"):
    """Send a request on a connection of its own, and return the status and the headers."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = {"Host": "localhost", "Content-Type": "application/json"}
        client.request(method, path, body, headers)
        response = client.getresponse()
        response.read()
        return response.status, dict(response.getheaders())
    finally:
        client.close()


def pids(server):
    return {worker.pid for worker in server.workers()}


def test_two_workers_together_allow_ten_of_fourteen_requests():
    with web(RATE_LIMIT_AUTH="10/day") as server:
        # Four clients send requests at the same time, so that both workers get requests.
        with ThreadPoolExecutor(4) as clients:
            first = [*clients.map(lambda _: send(server.port), range(8))]
        last = [send(server.port) for _ in range(6)]
        responses = first + last
        assert Counter(status for status, _ in responses) == {400: 10, 429: 4}

        # The headers of all responses agree.
        assert {each["RateLimit-Policy"] for _, each in responses} == {'"auth";q=10;w=86400'}
        remaining = [int(each["RateLimit"].split(";")[1][2:]) for _, each in responses]
        assert sorted(remaining[:8], reverse=True) == [9, 8, 7, 6, 5, 4, 3, 2]
        assert remaining[8:] == [1, 0, 0, 0, 0, 0]
        for status, headers in responses:
            if status == 429:
                assert headers["RateLimit"] == f'"auth";r=0;t={headers["Retry-After"]}'

        # The counts survive when all workers are killed, and the new workers continue to count.
        before = pids(server)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(pids(server) - before) == 2)
        server.wait("/health")
        assert {send(server.port)[0] for _ in range(4)} == {429}
        # Other requests have no limit here.
        status, headers = send(server.port, "GET", "/nothing", None)
        assert (status, "RateLimit" in headers) == (404, False)


@redis_server.needs_redis
def test_requests_succeed_while_redis_is_stopped_and_started(tmp_path):
    """No request fails, few requests wait, and all hosts count together again in the end."""
    with (
        redis_server.running(tmp_path) as server,
        web(RATE_LIMIT_ANON="1000000/day", RATE_LIMIT_AUTH="10/day", REDIS_URL=server.url) as site,
    ):
        with load(site.port) as seen:
            wait_until(lambda: len(seen) > 20)
            for stop, start in ((server.kill, server.start), (server.freeze, server.thaw)):
                stop()
                seen.clear()
                wait_until(lambda: len(seen) > 50)
                # If each request waited for Redis, the median would be higher.
                assert median(seconds for _, seconds in seen) < redis.PATIENCE, seen
                start()
                wait_until(lambda: counted(server) > 0)
                assert {status for status, _ in seen} == {404}

        def redis_counts_all():
            """Return whether Redis counts all requests of both workers."""
            before = counted(server)
            for _ in range(6):
                send(site.port, "GET", "/nothing", None)
            return counted(server) == before + 6

        wait_until(redis_counts_all)
        other_host = RedisCounts(server.url, HostCounts())
        key = "auth/10/86400/127.0.0.1"  # the web server counts this client under this key
        assert [other_host.hit(key, 10, 86400)[0] for _ in range(4)] == [True] * 4
        statuses = [send(site.port)[0] for _ in range(8)]
        assert statuses == [400] * 6 + [429] * 2
        assert not other_host.hit(key, 10, 86400)[0]


@contextmanager
def load(port):
    """Send requests from four threads; yield the list of their statuses and durations."""
    seen = []
    over = threading.Event()

    def ask():
        while not over.is_set():
            began = time.monotonic()
            status, _ = send(port, "GET", "/nothing", None)
            seen.append((status, time.monotonic() - began))

    with ThreadPoolExecutor(4) as clients:
        asking = [clients.submit(ask) for _ in range(4)]
        try:
            yield seen
        finally:
            over.set()
    for each in asking:
        each.result()


def counted(server):
    """Return the number of anonymous requests that Redis has counted."""
    # The keys of the previous windows end with `}/-1`.
    keys = [key for key in server.client.keys("bookit:{anon/*") if key.endswith(b"}")]
    return sum(int(server.client.get(key)) for key in keys)


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
