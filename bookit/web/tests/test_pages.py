"""The documentation, the pages about errors, and the health checks."""

import json
import re

import pytest
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.http import HttpResponse, StreamingHttpResponse

from bookit.tests.expect import problem
from bookit.web import pages
from bookit.web.middleware import RequestMiddleware

PAGES = ["/docs", "/redoc", "/errors", "/errors/throttled"]


# --- documentation ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES)
def test_a_page_loads_nothing_from_another_host(client, path):
    response = client.get(path)
    assert response.status_code == 200
    assert response["Content-Type"] == "text/html; charset=utf-8"
    page = response.content.decode()
    assert not re.findall(r"https?://[^\s\"'<)]*|[\"'(]//\w[^\s\"']*", page)


@pytest.mark.parametrize("path", PAGES)
def test_every_url_on_a_page_exists(client, path):
    page = client.get(path).content.decode()
    found = set(re.findall(r"(?:src|href|spec-url)=\"(/[^\"]*)\"|url: \"(/[^\"]*)\"", page))
    urls = {attribute or setting for attribute, setting in found}
    assert urls
    for url in urls:
        response = client.get(url)
        assert response.status_code == 200, url
        body = b"".join(response.streaming_content) if response.streaming else response.content
        assert body, url


# The script of /docs has the URL /docs?script=.
@pytest.mark.parametrize("path", ["/docs?script=", "/redoc"])
def test_the_documentation_shows_the_openapi_document(client, path):
    assert "/openapi.json" in client.get(path).content.decode()


def test_the_openapi_document_is_json_and_generated_once(client):
    first, second = client.get("/openapi.json"), client.get("/openapi.json")
    assert first["Content-Type"] == "application/json"
    assert first.content == second.content
    assert json.loads(first.content)["info"]["title"] == "BookIt"
    assert pages.schema() is pages.schema()


@pytest.mark.parametrize("path", [*PAGES, "/openapi.json", "/health"])
def test_a_head_request_gets_the_content_type_of_a_get_request_and_no_body(client, path):
    get, head = client.get(path), client.head(path)
    assert head.status_code == 200
    assert head.content == b""
    assert head["Content-Type"] == get["Content-Type"]


@pytest.mark.parametrize("answer", [HttpResponse, StreamingHttpResponse])
def test_the_body_of_a_head_request_is_dropped_before_the_server_sees_it(rf, answer):
    """Django's test client drops it as well, so this test calls the middleware itself."""
    responses = [
        RequestMiddleware(lambda _: answer([b"body"]))(make("/")) for make in (rf.get, rf.head)
    ]
    assert [b"".join(response) for response in responses] == [b"body", b""]
    if answer is HttpResponse:
        assert [response["Content-Length"] for response in responses] == ["4", "4"]


# `limit=0` is refused before the database is needed.
@pytest.mark.parametrize("path", [*PAGES, "/openapi.json", "/health", "/services?limit=0"])
def test_every_response_has_security_headers(client, path):
    response = client.get(path)
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["X-Frame-Options"] == "DENY"
    assert response["Referrer-Policy"] == "same-origin"


# --- health -----------------------------------------------------------------------------------


def test_health_is_ok_while_the_process_is_alive(client):
    """The health check uses no database, and this test has none."""
    response = client.get("/health")
    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    assert response.json() == {"status": "ok"}


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/health", "/health/ready"])
def test_health_checks_may_use_any_host_name(client, path):
    """An orchestrator uses the IP address of the container as the host name."""
    assert client.get(path, headers={"host": "10.1.2.3:8000"}).status_code == 200


@pytest.mark.django_db
def test_ready_is_ok_when_requests_can_be_served(client):
    response = client.get("/health/ready")
    assert response.status_code == 200
    assert response.json() == {"status": "ready"}


@pytest.mark.django_db
@pytest.mark.parametrize("app", ["bookings", "token_blacklist"])
def test_ready_returns_503_while_a_migration_is_pending(client, monkeypatch, app):
    monkeypatch.setattr(pages, "_migrated", False)
    last = MigrationRecorder.Migration.objects.filter(app=app).order_by("id").last()
    last.delete()
    content = problem(client.get("/health/ready"), 503, "service_unavailable")
    assert "manage.py migrate" in content["detail"]
    # Once the migration is applied, the process is ready without a restart.
    MigrationRecorder.Migration.objects.create(app=last.app, name=last.name)
    assert client.get("/health/ready").status_code == 200


@pytest.mark.django_db
def test_ready_checks_migrations_only_until_none_is_pending(client, django_assert_num_queries):
    assert client.get("/health/ready").status_code == 200
    with django_assert_num_queries(1):
        assert client.get("/health/ready").status_code == 200


@pytest.mark.django_db(databases=[])
def test_ready_returns_503_without_postgresql(client, no_database):
    content = problem(client.get("/health/ready"), 503, "service_unavailable")
    assert "PostgreSQL" in content["detail"]
    assert client.get("/health").status_code == 200


@pytest.mark.django_db(databases=[])
def test_ready_returns_503_without_postgresql_at_the_first_check(client, no_database, monkeypatch):
    monkeypatch.setattr(pages, "_migrated", False)
    problem(client.get("/health/ready"), 503, "service_unavailable")


@pytest.mark.django_db
def test_ready_returns_503_before_the_first_migration(client, monkeypatch):
    monkeypatch.setattr(pages, "_migrated", False)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE django_migrations RENAME TO elsewhere")
    problem(client.get("/health/ready"), 503, "service_unavailable")
