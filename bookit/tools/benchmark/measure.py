"""Runs the benchmark without `--growth`, step by step."""

import json
import os
import platform
from collections.abc import Iterable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from http.client import HTTPConnection, HTTPResponse
from http.cookies import SimpleCookie
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.db import connection
from django.utils import timezone

from bookings.models import Booking
from bookit.runtime import servers
from bookit.runtime.servers import Server
from bookit.tools.benchmark import fill, jobs, lists, load, pgbench, pgbouncer, usage
from bookit.tools.benchmark.cases import (
    BOOKERS,
    CASE_NAMES,
    RELATIONS,
    SERVICES_BOOKED,
    Case,
    Cases,
)
from bookit.tools.benchmark.fill import Size, user_email
from bookit.tools.benchmark.jobs import Say
from bookit.tools.benchmark.report import Comparison, Report, Result, Run
from bookit.tools.benchmark.statements import statements

REFERENCE = "bookit.tools.benchmark.reference"
PASSWORD = "a password for the benchmark alone"  # noqa: S105 - not a secret
SIGN_IN = "/admin/login/?next=/admin/"
# How long each case runs before the first round, to open connections, prepare statements and warm
# up code. In this time, each connection of the load completes at least one request, even on a busy
# machine, and even a login, which hashes a password. Shorter rounds also shorten this time.
WARM_UP_SECONDS = 2

# Reads whether PostgreSQL makes sure that committed changes are physically on disk.
#
# Parameters: none.
# Columns: fsync text, "on" or "off".
FSYNC = "SELECT current_setting('fsync') AS fsync"


@dataclass(frozen=True)
class Options:
    """The cases and jobs to measure, and how long to measure them.

    Args:
        only: the names of the cases and jobs to measure; if empty, all are measured.
        pgbouncer: whether BookIt behind PgBouncer takes the place of the reference.
    """

    size: Size
    seconds: int = 3
    rounds: int = 5
    workers: int = 2
    only: tuple[str, ...] = ()
    pgbouncer: bool = False

    def wants(self, name: str) -> bool:
        """Return whether a case or job should be measured."""
        return not self.only or name in self.only

    @property
    def need_load(self) -> bool:
        """Whether any requests should be measured, which requires wrk."""
        return any(self.wants(name) for name in CASE_NAMES)


class UnexpectedResponse(Exception):
    """A response is not as expected, so a measurement would mean nothing."""


def benchmark(url: str, options: Options, *, directory: Path, say: Say) -> Report:
    """Fill a database, run the benchmark on it, and return the results.

    Args:
        url: the URL of the database, which must be migrated and empty.
        directory: a folder for temporary files, which are not deleted.
        say: a function that is called with lines about the progress.

    Raises:
        ServerError, LoadError, JobsError, UnexpectedResponse: the benchmark cannot continue.
    """
    # Read the load of other programs on this machine before the benchmark adds most of its own.
    idle_load = os.getloadavg()[0]
    say(f"Filling in {options.size.services:,} services and {options.size.bookings:,} bookings.")
    with servers.connected_to(url):
        fill.fill(options.size, password=make_password(PASSWORD))
        report = Report(_setting(options, idle_load))
        if options.need_load:
            _measure_requests(report, url, options, directory=directory, say=say)
        report.jobs.extend(
            measure(url, options.size, say)
            for name, measure in jobs.MEASURES.items()
            if options.wants(name)
        )
    return report


def _measure_requests(
    report: Report, url: str, options: Options, *, directory: Path, say: Say
) -> None:
    """Measure the requests, and add the results to the report."""
    known_statements = statements()
    environment = {
        **servers.production(url, workers=options.workers),
        "BENCHMARK_STATEMENTS": json.dumps(known_statements),
        "BENCHMARK_LISTS": json.dumps(lists.recorded(options.size)),
    }
    with ExitStack() as stack:
        bookit = stack.enter_context(servers.serving(servers.BOOKIT, environment))
        if options.pgbouncer:
            connections = options.workers * int(os.environ.get("WEB_THREADS") or 4)
            pooling = pgbouncer.pooling(url, directory, pool_size=connections)
            environment |= {"DATABASE_URL": stack.enter_context(pooling), **pgbouncer.SETTINGS}
        application = servers.BOOKIT if options.pgbouncer else REFERENCE
        reference = stack.enter_context(servers.serving(application, environment))
        bookit.wait("/health")
        reference.wait("/services")
        say("Signing in.")
        known = signed_in_cases(options.size, bookit)
        for case in known.all():
            _check_responses(case, bookit, reference)
        cases = [case for case in known.all() if options.wants(case.name)]
        report.results.extend(
            _measure(cases, bookit, reference, options, directory=directory, say=say)
        )
        report.memory.extend(usage.memory(bookit))
        report.reference_memory.extend(usage.memory(reference))
    scripts = pgbench.scripts(
        known_statements,
        options.size,
        services=len(known.services),
        first_day=known.years_later,
    )
    found = {result.name: result for result in report.results}
    for name in scripts.keys() & found.keys():
        say(f"PostgreSQL alone: {found[name].title}.")
        found[name].pgbench = pgbench.rate(
            scripts[name], url, seconds=options.seconds, directory=directory
        )
    report.comparisons.extend(
        Comparison(found[relation.name], found[relation.other], relation.most, relation.by_cpu)
        for relation in [*RELATIONS, *known.relations()]
        if relation.name in found and relation.other in found
    )


def signed_in_cases(size: Size, bookit: Server) -> Cases:
    """Sign in the users, and return the cases, which use their tokens and the admin's cookie.

    Raises:
        UnexpectedResponse: the admin site refused to sign the admin in.
    """
    count = min(BOOKERS, size.customers // 2)
    # `growth.measure` may get databases that were measured before, so book after the last booking.
    latest = Booking.objects.order_by("-start_time").values_list("start_time", flat=True)[0]
    first_day = max(latest + fill.A_DAY, timezone.now() + timedelta(days=400))
    return Cases(
        size,
        bookers=_sign_in(bookit, range(1, count + 1)),
        readers=_sign_in(bookit, range(count + 1, 2 * count + 1)),
        provider=_sign_in(bookit, [size.lisbon_provider])[0],
        taken=fill.taken_times(size.quiet_services(SERVICES_BOOKED)),
        password=PASSWORD,
        admin=_sign_in(bookit, [size.admin])[0],
        admin_cookie=_sign_in_to_admin_site(bookit, user_email(size.admin)),
        first_day=first_day.replace(hour=0, minute=0, second=0, microsecond=0),
    )


def _measure(
    cases: list[Case],
    bookit: Server,
    reference: Server,
    options: Options,
    *,
    directory: Path,
    say: Say,
) -> list[Result]:
    """Measure every case in every round, first on BookIt, then (if possible) on the reference."""

    def run(case: Case, server: Server, seconds: int) -> Run:
        requests = case.requests(seconds)
        with fill.events_disabled() if case.without_events else nullcontext():
            before = usage.cpu_seconds(server)
            database_before = usage.database_cpu_seconds(postmaster)
            measurement = load.send(
                requests,
                server.port,
                seconds=seconds,
                connections=case.connections,
                directory=directory,
            )
            after = usage.cpu_seconds(server)
            database = usage.database_cpu_seconds(postmaster) - database_before
            spent = [end - start for start, end in zip(before, after, strict=True)]
            usage.settle(server)
        return Run(measurement, spent, database, measurement.unexpected(case.expected))

    postmaster = usage.postmaster()
    say("Warming up.")
    for case in cases:
        for server in (bookit, reference) if case.has_reference else (bookit,):
            run(case, server, min(WARM_UP_SECONDS, options.seconds))
    results = [Result.of(case) for case in cases]
    for number in range(1, options.rounds + 1):
        for case, result in zip(cases, results, strict=True):
            say(f"Round {number} of {options.rounds}: {case.title}.")
            result.bookit.append(run(case, bookit, options.seconds))
            if case.has_reference:
                result.reference.append(run(case, reference, options.seconds))
    return results


def _sign_in(server: Server, numbers: Iterable[int]) -> list[str]:
    """Sign in users, and return their access tokens."""
    tokens = []
    for number in numbers:
        request = {"email": user_email(number), "password": PASSWORD}
        _, session = _ask(server, load.raw_request("POST", "/auth/login", body=request))
        tokens.append(session["access_token"])
    return tokens


def _sign_in_to_admin_site(server: Server, email: str) -> str:
    """Sign in to the admin site, and return the cookie of the session.

    Raises:
        UnexpectedResponse: the admin site refused to sign the user in.
    """
    client = HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        client.request("GET", SIGN_IN, headers={"Host": "localhost"})
        token = _cookies(client.getresponse())[settings.CSRF_COOKIE_NAME]
        form = {"username": email, "password": PASSWORD, "csrfmiddlewaretoken": token}
        headers = {
            "Host": "localhost",
            "Content-Type": "application/x-www-form-urlencoded",
            "Cookie": f"{settings.CSRF_COOKIE_NAME}={token}",
        }
        client.request("POST", SIGN_IN, urlencode(form), headers)
        session = _cookies(client.getresponse()).get(settings.SESSION_COOKIE_NAME)
    finally:
        client.close()
    if session is None:
        raise UnexpectedResponse("The admin site did not sign the admin in.")
    return f"{settings.SESSION_COOKIE_NAME}={session}"


def _cookies(response: HTTPResponse) -> dict[str, str]:
    """Read a response to its end, and return the cookies that it sets."""
    response.read()
    cookies: SimpleCookie = SimpleCookie()
    for header in response.headers.get_all("Set-Cookie", []):
        cookies.load(header)
    return {name: cookie.value for name, cookie in cookies.items()}


def _ask(server: Server, request: bytes) -> tuple[int, Any]:
    """Send a raw request, and return the status and the body, which is parsed if it is JSON."""
    head, _, body = request.partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    method, path, _ = line.split(" ")
    client = HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        pairs = dict(header.split(": ", 1) for header in headers)
        client.request(method, path, body=body or None, headers=pairs)
        response = client.getresponse()
        content = response.read()
        is_json = "json" in response.headers.get_content_type()
        return response.status, json.loads(content) if is_json else content.decode()
    finally:
        client.close()


def _check_responses(case: Case, bookit: Server, reference: Server) -> None:
    """Check that BookIt and the reference give the same response, so that a comparison is fair.

    Raises:
        UnexpectedResponse: a response has an unexpected status, or the two responses differ.
    """
    requests = case.requests(0)
    request = next(requests)
    status, ours = _ask(bookit, request)
    if status != case.expected:
        raise UnexpectedResponse(
            f"{case.title}: BookIt returns {status}, not {case.expected}: {ours}"
        )
    if not case.has_reference:
        return
    # A time can be booked only once, so the reference gets the next request. The two responses have
    # the same fields, but different values.
    is_created = case.expected == 201
    status, theirs = _ask(reference, next(requests) if is_created else request)
    if status != case.expected:
        raise UnexpectedResponse(
            f"{case.title}: the reference returns {status}, not {case.expected}."
        )
    if case.expected == 200:
        # These fields are not compared. The reference writes other links, and always has a count.
        # BookIt has no count if the request has a cursor.
        ignored = dict.fromkeys(("count", "next", "previous") if case.plain else ("next",))
        same = {**ours, **ignored} == {**theirs, **ignored}
    elif is_created:
        same = ours.keys() == theirs.keys()
    else:
        same = ours["alternatives"] == theirs["alternatives"]
    if not same:
        raise UnexpectedResponse(
            f"{case.title}: BookIt and the reference give different responses."
        )


def _setting(options: Options, idle_load: float) -> dict[str, str]:
    """Return the conditions of the run, which are needed to compare it with other runs."""
    with connection.cursor() as cursor:
        cursor.execute(FSYNC)
        [(fsync,)] = cursor.fetchall()
    packages = ("django", "djangorestframework", "psycopg", "gunicorn")
    setting = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}; "
        f"load average before the run: {idle_load:.1f}",
        "software": f"Python {platform.python_version()},"
        f" PostgreSQL {connection.pg_version // 10_000}, "  # type: ignore[attr-defined]
        + ", ".join(f"{name} {version(name)}" for name in packages),
        "database": f"{options.size.services:,} services, {options.size.bookings:,} bookings, "
        f"fsync {fsync}",
        "web": f"gunicorn, {options.workers} workers of"
        f" {os.environ.get('WEB_THREADS') or 4} threads",
    }
    if options.pgbouncer:
        setting["reference"] = "BookIt behind PgBouncer " + ".".join(map(str, pgbouncer.version()))
    if options.need_load:
        setting["load"] = (
            f"{load.version()}, {load.CONNECTIONS} connections, "
            f"{options.rounds} rounds of {options.seconds} s"
        )
    return setting
