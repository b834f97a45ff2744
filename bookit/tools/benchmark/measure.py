"""The whole benchmark, one thing after the other."""

import json
import os
import platform
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPConnection
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
from django.contrib.auth.hashers import make_password

from bookit.tools.benchmark import fill, jobs, load, pgbench, servers
from bookit.tools.benchmark.cases import (
    BOOKERS,
    RELATIONS,
    SERVICES_BOOKED,
    Case,
    Cases,
    user_email,
)
from bookit.tools.benchmark.fill import Size
from bookit.tools.benchmark.report import Comparison, Report, Result, Run
from bookit.tools.benchmark.servers import Server

PASSWORD = "a password for the benchmark alone"  # noqa: S105
CASE_NAMES = [
    *("service", "services"),
    *("free-7-0", "free-7-100", "free-7-2000", "free-62-0", "free-62-100", "free-62-2000"),
    *("free-50", "bookings", "create", "create-silent", "refused", "seat", "publish", "login"),
]
# Before the first round: connections are opened, statements prepared, code is warm. Long enough for
# sixteen logins on a busy machine.
WARM_UP_SECONDS = 2.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How much is measured, and for how long."""

    size: Size
    seconds: float = 3
    rounds: int = 5
    workers: int = servers.WORKERS
    # Empty: all.
    only: tuple[str, ...] = ()


class Disagreement(Exception):
    """BookIt and the reference give different answers: what is measured is not the same work."""


def benchmark(url: str, options: Options, *, directory: Path, say: Say) -> Report:
    """Fill the migrated, empty database at `url`, measure, and return what was found.

    `directory` is for files that nobody needs afterwards; `say` is told of the progress.

    Raises:
        ServerError, LoadError, Disagreement: it makes no sense to go on.
    """
    environment = servers.production(url, workers=options.workers)
    # Before we add to it: where others are at work too, the numbers are theirs as well.
    idle_load = os.getloadavg()[0]
    say(f"Filling in {options.size.services:,} services and {options.size.bookings:,} bookings.")
    fill.fill(url, options.size, password=make_password(PASSWORD))
    with ExitStack() as stack:
        bookit = stack.enter_context(servers.serving(servers.BOOKIT, environment))
        reference = stack.enter_context(servers.serving(servers.REFERENCE, environment))
        bookit.wait("/health")
        reference.wait("/services")
        say("Signing in.")
        half = min(BOOKERS, options.size.users // 2)
        known = Cases(
            options.size,
            bookers=_sign_in(bookit, range(1, half + 1)),
            readers=_sign_in(bookit, range(half + 1, 2 * half + 1)),
            provider=_sign_in(bookit, [options.size.lisbon_provider])[0],
            taken=fill.taken_times(url, options.size.quiet_services(SERVICES_BOOKED)),
            password=PASSWORD,
        )
        cases = known.all()
        for case in cases:
            _compare(case, bookit, reference)
        cases = [case for case in cases if not options.only or case.name in options.only]
        results = _measure(cases, url, bookit, reference, options, directory=directory, say=say)
        memory, reference_memory = bookit.memory(), reference.memory()
    for case, result in zip(cases, results, strict=True):
        if case.pgbench is not None:
            say(f"PostgreSQL alone: {case.title}.")
            result.pgbench = pgbench.rate(
                case.pgbench, url, seconds=options.seconds, directory=directory
            )
    found = {result.name: result for result in results}
    comparisons = [
        Comparison(found[relation.name], found[relation.other], relation.most)
        for relation in RELATIONS
        if relation.name in found and relation.other in found
    ]
    setting = _setting(url, options, environment, idle_load)
    done = [
        measure(url, options.size, say)
        for name, measure in jobs.MEASURES.items()
        if not options.only or name in options.only
    ]
    return Report(setting, results, comparisons, memory, reference_memory, done)


def _measure(
    cases: list[Case],
    url: str,
    bookit: Server,
    reference: Server,
    options: Options,
    *,
    directory: Path,
    say: Say,
) -> list[Result]:
    """Measure every case in every round, BookIt and the reference by turns."""
    results = [
        Result(
            case.name,
            case.title,
            case.expected,
            least_ratio=case.least_ratio,
            most_spread=case.most_spread,
            most_ms=case.most_ms,
        )
        for case in cases
    ]

    def run(case: Case, server: Server, seconds: float) -> Run:
        requests = case.requests(seconds)
        if case.silent:
            fill.write_events(url, written=False)
        before = server.cpu_seconds()
        measurement = load.send(
            requests,
            server.port,
            seconds=seconds,
            connections=case.connections,
            directory=directory,
        )
        spent = server.cpu_seconds() - before
        server.settle()
        if case.silent:
            fill.write_events(url, written=True)
        return Run(measurement, spent, measurement.unexpected(case.expected))

    say("Warming up.")
    for case in cases:
        for server in (bookit, reference) if case.has_reference else (bookit,):
            run(case, server, min(WARM_UP_SECONDS, options.seconds))
    for number in range(1, options.rounds + 1):
        for case, result in zip(cases, results, strict=True):
            say(f"Round {number} of {options.rounds}: {case.title}.")
            result.bookit.append(run(case, bookit, options.seconds))
            if case.has_reference:
                result.reference.append(run(case, reference, options.seconds))
    return results


def _sign_in(server: Server, numbers: Iterable[int]) -> list[str]:
    """Return access tokens of these customers."""
    tokens = []
    for number in numbers:
        request = {"email": user_email(number), "password": PASSWORD}
        _, session = _ask(server, load.raw_request("POST", "/auth/login", body=request))
        tokens.append(session["access_token"])
    return tokens


def _ask(server: Server, request: bytes) -> tuple[int, Any]:
    """Send one raw request; return the status of its answer, and what it says."""
    head, _, body = request.partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    method, path, _ = line.split(" ")
    client = HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        pairs = dict(header.split(": ", 1) for header in headers)
        client.request(method, path, body=body or None, headers=pairs)
        answer = client.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        client.close()


def _compare(case: Case, bookit: Server, reference: Server) -> None:
    """Make sure that both do the same work before anybody measures how fast they do it.

    Raises:
        Disagreement: an answer is not as expected, or not the same on both sides.
    """
    requests = case.requests(0)
    request = next(requests)
    status, ours = _ask(bookit, request)
    if status != case.expected:
        raise Disagreement(f"{case.title}: BookIt answers {status}, not {case.expected}: {ours}")
    if not case.has_reference:
        return
    # Bookings that can be made once only are compared by their shape.
    made = case.expected == 201
    status, theirs = _ask(reference, next(requests) if made else request)
    if status != case.expected:
        raise Disagreement(f"{case.title}: the reference answers {status}, not {case.expected}.")
    if case.expected == 200:
        same = {**ours, "next": None} == {**theirs, "next": None}
    elif made:
        same = ours.keys() == theirs.keys()
    else:
        same = ours["alternatives"] == theirs["alternatives"]
    if not same:
        raise Disagreement(f"{case.title}: BookIt and the reference show different things.")


def _setting(
    url: str, options: Options, environment: dict[str, str], idle_load: float
) -> dict[str, str]:
    """Return what a reader has to know to compare the numbers with others."""
    with psycopg.connect(url) as connection:
        server = connection.info.server_version // 10_000
        fsync = connection.execute("SHOW fsync").fetchone()
    packages = ("django", "djangorestframework", "psycopg", "gunicorn")
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}; "
        f"load average before the run: {idle_load:.1f}",
        "software": f"Python {platform.python_version()}, PostgreSQL {server}, "
        + ", ".join(f"{name} {version(name)}" for name in packages),
        "database": f"{options.size.services:,} services, {options.size.bookings:,} bookings, "
        f"fsync {fsync[0] if fsync else 'unknown'}",
        "web": f"gunicorn, {options.workers} workers of {environment['WEB_THREADS'] or 4} threads",
        "load": f"{load.generator()}, {load.CONNECTIONS} connections, "
        f"{options.rounds} rounds of {options.seconds:g} s",
    }
