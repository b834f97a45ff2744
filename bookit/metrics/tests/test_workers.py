"""The counters are exact with several web processes, even after one of these processes dies."""

import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import pytest

from bookings.tests.workers import database_url
from bookit.metrics.tests.scraping import samples
from bookit.runtime.servers import BOOKIT, production, serving

pytestmark = pytest.mark.django_db(transaction=True)

HEALTH = ("bookit_http_requests_total", "GET", "200", "/health")
DURATIONS = ("bookit_http_request_duration_seconds_count", "GET", "/health")


def get(port, path, **headers):
    """Send a request on a new connection, so that any worker may accept it."""
    client = HTTPConnection("127.0.0.1", port, timeout=30)
    client.request("GET", path, headers={"Host": "localhost", **headers})
    response = client.getresponse()
    content = response.read().decode()
    client.close()
    return response.status, content


def scrape(port):
    status, content = get(port, "/metrics")
    assert status == 200, content
    return samples(content)


def test_every_worker_shows_the_requests_of_all_workers(tmp_path):
    folder = tmp_path / "metrics"
    folder.mkdir()
    (folder / "counter_worker0.db").write_bytes(b"left by an earlier server")
    environment = {
        **production(database_url(), workers=3),
        "PROMETHEUS_MULTIPROC_DIR": str(folder),
    }
    with serving(BOOKIT, environment) as server:
        server.wait("/health")
        before = scrape(server.port).get(HEALTH, 0)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: get(server.port, "/health"), range(150)))
        # All scrapes agree, whichever worker responds.
        for _ in range(3):
            found = scrape(server.port)
            assert found[HEALTH] == found[DURATIONS] == before + 150
        used = [path for path in folder.glob("counter_*") if b"/health" in path.read_bytes()]
        assert len(used) > 1, "for this test, several workers must handle requests"

        victim = server.workers()[0]
        victim.kill()
        victim.wait(10)
        deadline = time.monotonic() + 20
        while len(server.workers()) < 3 or victim in server.workers():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        get(server.port, "/health")
        assert scrape(server.port)[HEALTH] == before + 151
        # The new worker continues the files of the dead worker, so there are still only the
        # counters of three workers and of the main process.
        assert len([*folder.glob("counter_*")]) == 4
