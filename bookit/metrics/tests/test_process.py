"""The counters of web processes. No client can create new time series."""

from uuid import uuid4

import pytest
from django.db import ProgrammingError
from django.utils import timezone

from accounts.tests.factories import UserFactory
from bookings.tests.factories import TUESDAY
from bookit.metrics import directory
from bookit.metrics.process import view_name
from bookit.metrics.tests.scraping import scrape
from bookit.runtime.costly import may_cost_much
from bookit.tests.routes import every_route
from catalog.tests.factories import ServiceFactory

pytestmark = pytest.mark.django_db

REQUESTS = "bookit_http_requests_total"
DURATION = "bookit_http_request_duration_seconds_count"


@pytest.fixture
def counted(api):
    """Return a function that returns how much each sample has grown since the previous call.

    Samples of the view `/metrics` are left out.
    """
    last = scrape(api)

    def counted():
        nonlocal last
        before, last = last, scrape(api)
        return {
            key: value - before.get(key, 0)
            for key, value in last.items()
            if value != before.get(key, 0) and "/metrics" not in key
        }

    counted()  # Ignore the waits before and during the first scrape.
    return counted


def named(found, name):
    """Return the growth of each sample with this name, by its label values."""
    return {key[1:]: value for key, value in found.items() if key[0] == name}


def test_requests_are_counted_by_route_method_and_status(api, counted):
    service = ServiceFactory()
    for _ in range(3):
        assert api.get(f"/services/{service.pk}").status_code == 200
    assert api.get(f"/services/{uuid4()}").status_code == 404
    assert api.post("/services").status_code == 401
    api.get("/")
    found = counted()
    assert named(found, REQUESTS) == {
        ("GET", "200", "/services/{pk}"): 3,
        ("GET", "404", "/services/{pk}"): 1,
        ("POST", "401", "/services"): 1,
        ("GET", "302", "/"): 1,
    }
    assert named(found, DURATION) == {
        ("GET", "/services/{pk}"): 4,
        ("POST", "/services"): 1,
        ("GET", "/"): 1,
    }


def test_paths_that_are_not_routes_share_a_few_names(api, counted):
    for n in range(20):
        api.get(f"/nothing-{n}")
        api.get(f"/admin/nothing-{n}/")
        api.get(f"/services/{n}")
    api.get("/services", HTTP_HOST="evil.example.com")
    api.get("/static/nothing.css")
    api.get("/static/bookit/errors.css")
    requests = named(counted(), REQUESTS)
    assert {view for _, _, view in requests} == {"unknown", "/admin/", "static"}
    # 20 paths below /, 20 paths below /services/, and a static file
    assert requests[("GET", "404", "unknown")] == 20 + 20 + 1
    assert requests[("GET", "400", "unknown")] == 1
    assert requests[("GET", "200", "static")] == 1


def test_unknown_methods_share_a_name(api, counted):
    for n in range(20):
        api.generic(f"METHOD{n}", "/services")
    assert named(counted(), REQUESTS) == {("other", "405", "/services"): 20}


def test_the_name_of_every_route_is_a_plain_template():
    found = {view_name(route) for route, _view in every_route()}
    assert {"/services/{pk}", "/bookings/{pk}.ics", "/admin/", "/errors/{code}"} <= found
    assert not [name for name in found if set(name) & set("<>()?:^$\\")]


def test_the_files_of_the_counters_have_room_for_every_view_and_method():
    combinations = {
        (view_name(route), method)
        for route, view in every_route()
        for method in getattr(view, "actions", ["get"])
    }
    # `directory.SIZES` expects about 100 combinations, and has room for half as many again.
    assert len(combinations) < 150


def test_scrapes_count_as_costly():
    assert may_cost_much("GET", "/metrics", "")
    assert not may_cost_much("GET", "/health", "")


def test_bookings_of_taken_times_are_counted_as_conflicts(api, counted):
    service = ServiceFactory()
    client = api.as_(UserFactory())
    body = {"service_id": str(service.pk), "start_time": TUESDAY.isoformat()}
    assert [client.post("/bookings", body).status_code for _ in range(3)] == [201, 409, 409]
    found = counted()
    assert named(found, "bookit_booking_conflicts_total") == {(): 2}
    assert named(found, "bookit_bookings_total") == {("pending",): 1}
    # A 409 for another reason is not counted.
    body = {**body, "start_time": timezone.now().replace(year=2080).isoformat()}
    service.max_advance_days = 30
    service.save()
    assert client.post("/bookings", body).status_code == 409
    assert named(counted(), "bookit_booking_conflicts_total") == {}


def test_the_time_that_requests_wait_for_the_database_is_counted(api, counted):
    api.get("/health")
    idle = counted()
    api.get("/services")
    found = counted()
    # Each scrape itself waits for PostgreSQL, so the number also grows without other queries.
    name = ("bookit_database_waits_total",)
    assert found[name] > idle[name]
    assert 0 < found[("bookit_database_wait_seconds_total",)] < 10
    # Each wait is counted once, so the same request adds the same number again.
    api.get("/services")
    assert counted()[name] == found[name]


@pytest.mark.parametrize("no_database", ["not pooled"], indirect=True)
def test_the_counters_are_shown_while_postgresql_is_down(no_database, api, log_lines):
    first = scrape(api)
    assert first[("bookit_database_up",)] == 0
    assert scrape(api)[(REQUESTS, "GET", "200", "/metrics")] >= 1
    assert "no metrics from PostgreSQL" in log_lines()[0]["message"]


def test_postgresql_is_up_while_a_migration_is_pending(api, monkeypatch, log_lines):
    def collect():
        raise ProgrammingError('relation "bookit_jobtally" does not exist')

    monkeypatch.setattr("bookit.metrics.jobs.collect", collect)
    found = scrape(api)
    assert found[("bookit_database_up",)] == 1
    assert found[("bookit_database_deadlocks_total",)] >= 0
    # The collector of this metric runs after the one that failed.
    assert found[("bookit_bookings_total", "confirmed")] == 0
    assert "not all metrics from PostgreSQL" in log_lines()[0]["message"]


def test_a_process_without_disk_space_counts_nothing_and_its_metrics_return_503(
    api, monkeypatch, counted
):
    monkeypatch.setattr(directory, "recording", False)
    assert api.get("/services").status_code == 200
    response = api.get("/metrics", HTTP_HOST="localhost")
    assert (response.status_code, response.json()["code"]) == (503, "service_unavailable")
    monkeypatch.undo()
    assert named(counted(), REQUESTS) == {}
