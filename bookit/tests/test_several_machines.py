"""One site on several machines, behind a load balancer: limits, idempotency, metrics, upgrades.

Each web server and each worker is a process tree of its own. They share only PostgreSQL and Redis.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from textwrap import dedent

import pytest
from django.db.migrations.loader import MigrationLoader

from accounts.tests.factories import PASSWORD, ProviderFactory, UserFactory
from bookings.models import Booking
from bookings.tests.workers import Worker, until
from bookit.metrics.tests.scraping import samples
from bookit.ratelimits.tests import redis_server
from bookit.runtime.embedded_postgres import running
from bookit.runtime.servers import BOOKIT, connected_to, production, serving
from bookit.runtime.startup import BASE_DIR
from bookit.runtime.tests.test_frozen_postgres import send_request
from bookit.tests.plugin import THROWAWAY
from bookit.tests.processes import free_port
from catalog.tests.factories import CalendarFactory, ServiceFactory

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
pytestmark = [
    redis_server.needs_redis,
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: apt install nginx)"),
]

# The load balancer of docs/operations.md, without `X-Forwarded-Proto`. nginx passes a POST or PATCH
# request to another server only if it has not sent it to the first, so no such request is carried
# out twice. Without keep-alive, each request has a new connection, so none is sent on a connection
# that a server has just closed.
BALANCER = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; {user}
events {{}}
http {{
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream bookit {{ {servers} }}
  server {{
    listen 127.0.0.1:{port}; access_log off;
    location / {{
      proxy_pass http://bookit;
      proxy_set_header Host $http_host;
      proxy_set_header Connection close;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
  }}
}}
"""
# The hourly limit of requests with one API key. The test sends more requests.
LIMIT = 40
CUSTOMERS = 4


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


class Site:
    """A site whose servers and workers run until the end of the test."""

    def __init__(self, stack, folder, url, redis):
        self.stack, self.folder = stack, folder
        self.environment = {
            **production(url, workers=1),
            "REDIS_URL": redis.url,
            "RATE_LIMIT_KEY": f"{LIMIT}/hour",
            "NUM_PROXIES": "1",
            "WEB_THREADS": "4",
        }
        self.url = url
        self.workers = []
        self.port = free_port()
        self.nginx = None

    def web(self, **variables):
        """Start a web server."""
        return self.stack.enter_context(serving(BOOKIT, {**self.environment, **variables}))

    def worker(self, **variables):
        """Start a worker."""
        environment = {**self.environment, **variables}
        del environment["DATABASE_URL"]
        output = self.folder / f"worker-{len(self.workers)}"
        worker = Worker(output, url=self.url, **environment)
        self.stack.callback(worker.process.wait)
        self.stack.callback(worker.process.kill)
        self.workers.append(worker)
        return worker

    def balance(self, webs):
        """Let the load balancer pass requests to these web servers, and return its port.

        The function first waits until the web servers are ready.
        """
        until(lambda: all(is_ready(web.port) for web in webs))
        servers = " ".join(f"server 127.0.0.1:{web.port} fail_timeout=2s;" for web in webs)
        user = "user root;" if os.geteuid() == 0 else ""
        (self.folder / "nginx.conf").write_text(
            BALANCER.format(folder=self.folder, port=self.port, servers=servers, user=user)
        )
        if self.nginx is None:
            config = ["-e", "stderr", "-p", str(self.folder), "-c", "nginx.conf"]
            self.nginx = subprocess.Popen([NGINX, *config], stderr=subprocess.DEVNULL)
            self.stack.callback(self.nginx.wait)
            self.stack.callback(self.nginx.terminate)
            until(lambda: is_ready(self.port))
        else:
            self.nginx.send_signal(signal.SIGHUP)
        return self.port


@pytest.fixture
def site(tmp_path, stack, django_db_blocker, migrate):
    redis = stack.enter_context(redis_server.running(tmp_path))
    url = stack.enter_context(running(tmp_path / "postgres", settings=THROWAWAY))
    migrate(url)
    site = Site(stack, tmp_path, url, redis)
    stack.enter_context(django_db_blocker.unblock())
    stack.enter_context(connected_to(url))
    site.customers = [UserFactory() for _ in range(CUSTOMERS)]
    site.provider = ProviderFactory()
    site.service = ServiceFactory(calendar=CalendarFactory(provider=site.provider))
    return site


def is_ready(port):
    try:
        return send_request(port, "GET", "/health/ready").status == 200
    except (OSError, HTTPException):
        return False


def sign_in(port, user):
    credentials = {"email": user.email, "password": PASSWORD}
    session = send_request(port, "POST", "/auth/login", credentials)
    assert session.status == 200, session
    return {"Authorization": f"Bearer {session.content['access_token']}"}


def metrics(server):
    """Return the metrics of one web server. As Prometheus does, bypass the load balancer."""
    return samples(send_request(server.port, "GET", "/metrics").content.decode())


@pytest.mark.real_passwords
def test_two_web_servers_and_two_workers_act_as_one_site(site):
    webs = [site.web(), site.web()]
    workers = [site.worker(), site.worker()]
    port = site.balance(webs)
    customer = sign_in(port, site.customers[0])
    key = send_request(port, "POST", "/me/api-keys", {"name": "Mine"}, **customer)
    bearer = {"Authorization": f"Bearer {key.content['key']}"}

    # A limit counts the requests to all servers.
    def read_bookings(port):
        return send_request(port, "GET", "/bookings", **bearer)

    with ThreadPoolExecutor(8) as threads:
        read = [*threads.map(read_bookings, [port] * (LIMIT + 20))]
    assert Counter(each.status for each in read) == {200: LIMIT, 429: 20}

    # A repeated request gets the first response, whichever server it reaches.
    body = {
        "service_id": str(site.service.pk),
        "start_time": (datetime.now(UTC) + timedelta(days=9)).isoformat(),
    }
    repeated = {**customer, "Idempotency-Key": "once"}

    def book(port):
        return send_request(port, "POST", "/bookings", body, **repeated)

    with ThreadPoolExecutor(8) as threads:
        booked = [*threads.map(book, [port] * 16)]
    booked += [book(web.port) for web in webs]
    assert {each.status for each in booked} <= {201, 409}
    assert {each.content["code"] for each in booked if each.status == 409} <= {
        "idempotency_in_progress"
    }
    assert [each.status for each in booked[-2:]] == [201, 201]
    assert len({each.content["id"] for each in booked if each.status == 201}) == 1
    assert Booking.objects.count() == 1

    # Each server counts its own requests. All servers show the same numbers from PostgreSQL.
    until(lambda: all(worker.jobs("bookings.follow_up") == [] for worker in workers))
    # Each of the two worker processes has three procrastinate workers.
    until(lambda: {metrics(web)[("bookit_workers",)] for web in webs} == {6.0})
    seen = [metrics(web) for web in webs]
    name = "bookit_http_requests_total"
    served = [found.get((name, "GET", "200", "/bookings"), 0) for found in seen]
    assert sum(served) == LIMIT
    assert min(served) > 0
    created = [found.get((name, "POST", "201", "/bookings"), 0) for found in seen]
    assert sum(created) == sum(each.status == 201 for each in booked)
    assert min(created) > 0
    assert [found[("bookit_bookings_total", "pending")] for found in seen] == [1.0, 1.0]


def write_next_version(folder):
    """Write an app that changes tables of other apps, and settings that install the app.

    Return the environment variables that select these settings. A real next version would change
    the migrations and models of those apps themselves.
    """
    last = max(name for app, name in MigrationLoader(None).graph.leaf_nodes("catalog"))
    app = folder / "nextversion"
    (app / "migrations").mkdir(parents=True)
    (app / "__init__.py").touch()
    (app / "migrations" / "__init__.py").touch()
    (app / "migrations" / "0001_initial.py").write_text(
        dedent(f"""
        from django.db import migrations

        class Migration(migrations.Migration):
            dependencies = [("catalog", "{last}")]
            operations = [
                migrations.RunSQL("ALTER TABLE catalog_service ADD COLUMN colour text"),
                # Prepared statements of running processes then return columns of other types.
                migrations.RunSQL(
                    "ALTER TABLE catalog_service ALTER COLUMN category TYPE varchar(120);"
                    "ALTER TABLE bookings_booking ALTER COLUMN attendee_phone TYPE varchar(90)"
                ),
            ]
        """)
    )
    (app / "models.py").write_text(
        dedent("""
        from django.db import models
        from catalog.models import Service

        models.TextField(null=True).contribute_to_class(Service, "colour")
        """)
    )
    (folder / "next_settings.py").write_text(
        dedent("""
        from bookit.settings import *

        INSTALLED_APPS = [*INSTALLED_APPS, "nextversion"]
        """)
    )
    return {"DJANGO_SETTINGS_MODULE": "next_settings", "PYTHONPATH": str(folder)}


class Clients:
    """Customers who book, read, and cancel every third booking, until the `with` block ends."""

    def __init__(self, port, site):
        self.port, self.site = port, site
        self.first = datetime.now(UTC) + timedelta(days=20)
        self.responses = Counter()
        self.broken = []
        self.kept, self.cancelled = [], []
        self.ended = threading.Event()
        self.threads = [
            threading.Thread(target=self.act, args=(number, customer))
            for number, customer in enumerate(site.customers)
        ]

    def send(self, method, path, body=None, **headers):
        try:
            response = send_request(self.port, method, path, body, **headers)
        except (OSError, HTTPException) as error:
            self.broken.append(f"{method} {path}: {error!r}")
            return None
        self.responses[response.status] += 1
        if response.status >= 400:
            self.broken.append(f"{method} {path}: {response}")
            return None
        return response

    def act(self, number, customer):
        bearer = sign_in(self.port, customer)
        service = str(self.site.service.pk)
        for turn in range(10_000):
            if self.ended.is_set():
                return
            start_time = self.first + timedelta(hours=CUSTOMERS * turn + number)
            body = {"service_id": service, "start_time": start_time.isoformat()}
            booked = self.send("POST", "/bookings", body, **bearer)
            self.send("GET", f"/services/{service}")
            self.send("GET", "/bookings?limit=5", **bearer)
            if booked is None:
                continue
            if turn % 3:
                self.kept.append(booked.content["id"])
                continue
            path = f"/bookings/{booked.content['id']}"
            if self.send("PATCH", path, {"status": "cancelled"}, **bearer):
                self.cancelled.append(booked.content["id"])

    def __enter__(self):
        for each in self.threads:
            each.start()
        return self

    def __exit__(self, *error):
        self.ended.set()
        for each in self.threads:
            each.join()

    def carry_on(self):
        """Wait until the customers have made some more bookings, or until a request has failed."""
        before = len(self.kept)
        until(lambda: self.broken or len(self.kept) > before + 12)


@pytest.mark.real_passwords
def test_no_request_fails_during_a_rolling_upgrade(site, tmp_path):
    new = write_next_version(tmp_path / "next")
    old_webs, old_workers = [site.web(), site.web()], [site.worker(), site.worker()]
    new_webs = [site.web(**new), site.web(**new)]
    port = site.balance(old_webs)
    with Clients(port, site) as clients:
        clients.carry_on()
        for web in new_webs:
            web.wait("/health")
            # Control: before the migration, the new version fails, because its column is missing.
            assert send_request(web.port, "GET", "/health/ready").status == 503
            provider = sign_in(web.port, site.provider)
            path = f"/services/{site.service.pk}"
            refused = send_request(web.port, "PATCH", path, {"title": "New"}, **provider)
            assert (refused.status, refused.content["code"]) == (503, "service_unavailable")
        clients.carry_on()
        subprocess.run(
            [sys.executable, "manage.py", "migrate", "--no-input", "--verbosity=0"],
            cwd=BASE_DIR,
            env={**site.environment, **new},
            check=True,
        )
        # The old workers end before the new web servers can enqueue jobs.
        new_workers = [site.worker(**new), site.worker(**new)]
        for worker in old_workers:
            assert worker.end() == 0
            clients.carry_on()
        # For a while, the old and the new version run together.
        site.balance([*old_webs, *new_webs])
        clients.carry_on()
        for web in old_webs:
            web.process.terminate()
            assert web.process.wait(30) == 0
            clients.carry_on()
        site.balance(new_webs)
        assert send_request(port, "PATCH", path, {"title": "New"}, **provider).status == 200
        clients.carry_on()
    assert clients.broken == []
    assert set(clients.responses) == {200, 201}
    # Nothing is lost, and nothing is left over.
    stored = {
        str(pk): status for pk, status in Booking.objects.values_list("pk", "status").iterator()
    }
    assert stored == {
        **dict.fromkeys(clients.kept, "pending"),
        **dict.fromkeys(clients.cancelled, "cancelled"),
    }
    until(lambda: new_workers[0].jobs("bookings.follow_up") == [])
    name = "bookit_http_requests_total"
    served = [metrics(web)[name, "POST", "201", "/bookings"] for web in new_webs]
    assert min(served) > 0
