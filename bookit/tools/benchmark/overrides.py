"""Measures how much CPU time BookIt's overrides of the frameworks' methods save.

Requests go through the WSGI application in this process, without a network, to a real PostgreSQL.
Rounds with and without an override alternate. Each pair of rounds gives a ratio of CPU times, and
the gain is computed from the median of these ratios. The CPU time is the sum of the CPU times of
this process and of the PostgreSQL process that serves its connection.
"""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from statistics import median, quantiles
from time import process_time_ns
from typing import Any, NamedTuple
from unittest.mock import patch
from uuid import uuid4

import psycopg
from django.conf import settings
from django.core import signals
from django.core.cache import close_caches
from django.db import close_old_connections, connection, reset_queries
from django.db.backends.postgresql.base import DatabaseWrapper as DjangoBackend
from django.test.utils import override_settings
from django.utils.deprecation import MiddlewareMixin
from psycopg._preparing import PrepareManager
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import JSONParser
from rest_framework.renderers import JSONRenderer
from rest_framework.serializers import DateTimeField, ModelSerializer
from rest_framework_simplejwt.backends import TokenBackend

from accounts import authentication
from accounts.models import User
from accounts.sessions import tokens
from bookings.viewsets import BookingViewSet
from bookit.api import negotiation, parsers, renderers, views
from bookit.database import prepared
from bookit.database.postgresql import base
from bookit.database.postgresql.connections import Connection, KeptStatements
from bookit.database.prepared import Bound
from bookit.responses import Response
from bookit.tools.benchmark.fill import Size, access_token, key, taken_times
from bookit.web import middleware
from catalog.viewsets import ServiceViewSet

# The number of pairs of rounds: one round with the override, and one without it.
ROUNDS = 21
# The number of requests in a round.
REQUESTS = 40
# The first number in this file is the CPU time of a process in nanoseconds. `psutil` is too coarse,
# because it counts hundredths of a second.
SCHEDSTAT = "/proc/{}/schedstat"


class Request(NamedTuple):
    """A request. The requests of a case are alike: for example, all list services.

    Args:
        is_keyed: whether the request has an `Idempotency-Key`, which is new each time.
    """

    method: str
    target: str
    body: bytes = b""
    token: str = ""
    is_keyed: bool = False


class Gain(NamedTuple):
    """The CPU time that an override saves.

    Args:
        part: the saved part of a request's CPU time without the override; 0.1 is a tenth.
        microseconds: the CPU time of a request with the override.
        spread: the difference between the upper and the lower quartile of the ratios.
    """

    override: str
    case: str
    part: float
    microseconds: float
    spread: float


@dataclass(frozen=True)
class Override:
    """An override that can be switched off.

    Args:
        cases: the names of the cases with which the override is measured; see `_requests`.
        without: returns a context in which the override is switched off.
    """

    name: str
    cases: tuple[str, ...]
    without: Callable[[], AbstractContextManager[Any]]


def _plain_serializer(view: Any) -> type[ModelSerializer[Any]]:
    """Return a plain `ModelSerializer` of the columns that a view shows."""
    shown = view.serializer_class.Meta
    columns = {field.attname for field in shown.model._meta.fields}
    meta = type("Meta", (), {"model": shown.model, "fields": [*columns.intersection(shown.fields)]})
    # Entity tags are computed from the time itself, not from its text.
    updated_at = DateTimeField(format=None)
    return type("Plain", (ModelSerializer,), {"Meta": meta, "updated_at": updated_at})


class _Instances(Bound):
    """The rows of a query as instances of the model."""

    def __getitem__(self, part: slice) -> list[Any]:
        return [*self.queryset()[part]]


@contextmanager
def _with_instances() -> Iterator[None]:
    plain: dict[type, type[ModelSerializer[Any]]] = {
        view: _plain_serializer(view) for view in (ServiceViewSet, BookingViewSet)
    }

    def show_list(view: Any, request: Any, **kwargs: Any) -> Response:
        rows = view.filter_queryset(view.listed())
        page = view.paginate_queryset(_Instances(rows.query, rows.values))
        context = view.get_serializer_context()
        return view.get_paginated_response(plain[type(view)](page, many=True, context=context).data)

    def retrieve(view: Any, request: Any, pk: Any) -> Response:
        instance = view.queryset.get(pk=pk)
        context = view.get_serializer_context()
        return Response(plain[type(view)](instance, context=context).data)

    with (
        patch.object(ServiceViewSet, "list", show_list),
        patch.object(BookingViewSet, "list", show_list),
        patch.object(ServiceViewSet, "retrieve", retrieve),
    ):
        yield


@contextmanager
def _with_querysets() -> Iterator[None]:
    active_user = authentication.ACTIVE_USER

    class Users:
        @staticmethod
        def get(pk: Any) -> User | None:
            return active_user.queryset(pk=pk).first()

    with (
        patch.object(prepared, "_changed", prepared._changed.__wrapped__),
        patch.object(prepared, "_shaped", prepared._shaped.__wrapped__),
        patch.object(views, "_row_query", views._row_query.__wrapped__),
        patch.object(authentication, "ACTIVE_USER", Users),
    ):
        yield


def _new_serializer_for_each_body() -> Any:
    return patch.object(views, "_checker", lambda serializer, **options: serializer(**options))


def _method(ours: type, theirs: type, name: str) -> Callable[[], Any]:
    return lambda: patch.object(ours, name, getattr(theirs, name))


def _health_by_query() -> Any:
    return patch.object(base.DatabaseWrapper, "is_usable", DjangoBackend.is_usable)


@contextmanager
def _django_loaders() -> Iterator[None]:
    # A connection keeps the loaders that it was opened with, so each round gets a new connection.
    _disconnect()
    with (
        patch.object(base, "_with_own_loader", lambda template: template),
        patch.object(base.DatabaseWrapper, "create_cursor", DjangoBackend.create_cursor),
    ):
        yield
    _disconnect()


def _disconnect() -> None:
    connection.close()
    connection.close_pool()  # type: ignore[attr-defined]


@contextmanager
def _all_signals() -> Iterator[None]:
    signals.request_started.connect(reset_queries)
    signals.request_started.connect(close_old_connections)
    signals.request_finished.connect(close_caches)
    yield
    signals.request_started.disconnect(reset_queries)
    signals.request_started.disconnect(close_old_connections)
    signals.request_finished.disconnect(close_caches)


@contextmanager
def _statements_dropped_at_rollback() -> Iterator[None]:
    with (
        patch.object(KeptStatements, "_should_discard", PrepareManager._should_discard),
        patch.object(Connection, "rollback", psycopg.Connection.rollback),
    ):
        yield


def _middleware_everywhere() -> Any:
    return patch.object(middleware.InAdminSite, "__call__", MiddlewareMixin.__call__)


OVERRIDES = [
    Override(
        "rows without instances and serializer fields",
        ("services", "bookings", "service"),
        _with_instances,
    ),
    Override("prepared queries", ("services", "bookings", "service"), _with_querysets),
    Override("one serializer for all bodies", ("taken",), _new_serializer_for_each_body),
    Override(
        "orjson renders",
        ("services", "service"),
        lambda: patch.object(
            renderers.JSONRenderer,
            "render",
            lambda self, *arguments: JSONRenderer().render(*arguments),
        ),
    ),
    Override(
        "orjson parses",
        ("taken",),
        lambda: patch.object(
            parsers.JSONParser, "parse", lambda self, *arguments: JSONParser().parse(*arguments)
        ),
    ),
    Override(
        "token signatures are cached",
        ("bookings", "taken"),
        lambda: patch.object(tokens.CachingTokenBackend, "decode", TokenBackend.decode),
    ),
    Override(
        "negotiation: renderer",
        ("service", "bookings"),
        _method(negotiation.JSONNegotiation, DefaultContentNegotiation, "select_renderer"),
    ),
    Override(
        "negotiation: parser",
        ("taken",),
        _method(negotiation.JSONNegotiation, DefaultContentNegotiation, "select_parser"),
    ),
    Override(
        "changed queries are kept",
        ("filtered",),
        lambda: patch.object(prepared, "_changed", prepared._changed.__wrapped__),
    ),
    Override("fewer receivers of signals", ("service",), _all_signals),
    Override("connection check by socket", ("service", "bookings", "taken"), _health_by_query),
    Override("statements outlive a rollback", ("taken-keyed",), _statements_dropped_at_rollback),
    Override("times are parsed in C", ("bookings", "services"), _django_loaders),
    Override("sessions only in the admin site", ("service", "bookings"), _middleware_everywhere),
]


def measure(size: Size, *, rounds: int = ROUNDS) -> Iterator[Gain]:
    """Measure all overrides on the database of this process, which `fill` must have filled."""
    # Not imported at the top, because the import starts the application.
    from bookit.wsgi import application

    # The log lines of requests are written, because their cost counts, but to the null device.
    handlers: list[Any] = logging.getLogger().handlers
    limits = dict.fromkeys(settings.RATE_LIMITS, "1000000/second")
    with ExitStack() as stack:
        nowhere = stack.enter_context(Path(os.devnull).open("w"))
        for handler in handlers:
            if isinstance(handler, logging.StreamHandler):
                stack.enter_context(patch.object(handler, "stream", nowhere))
        stack.enter_context(override_settings(RATE_LIMITS=limits))
        requests = _requests(size)
        for override in OVERRIDES:
            for case in override.cases:
                yield _measure(application, override, case, requests[case], rounds)


def _measure(
    application: Any, override: Override, case: str, requests: list[Request], rounds: int
) -> Gain:
    ratios, times = [], []
    # The first pair of rounds warms up the code with and without the override, and is not counted.
    for number in range(-1, rounds):
        used = _cpu_time(application, requests)
        with override.without():
            plain = _cpu_time(application, requests)
        if number >= 0:
            ratios.append(used / plain)
            times.append(used / REQUESTS / 1000)
    lower, _, upper = quantiles(ratios, n=4) if rounds > 1 else (0.0, 0.0, 0.0)
    return Gain(override.name, case, 1 - median(ratios), median(times), upper - lower)


def _requests(size: Size) -> dict[str, list[Request]]:
    readers = [access_token(number) for number in range(1, min(50, size.customers) + 1)]
    services = [key("service", number) for number in range(1, min(100, size.services) + 1)]
    taken = [
        json.dumps({"service_id": pk, "start_time": start}).encode()
        for pk, start in taken_times(size.quiet_services(200))
    ]
    return {
        "service": [Request("GET", f"/services/{pk}") for pk in services],
        "services": [Request("GET", "/services")],
        "filtered": [Request("GET", "/services?category=sport&ordering=-price")],
        "bookings": [Request("GET", "/bookings", token=reader) for reader in readers],
        "taken": [Request("POST", "/bookings", body, readers[0]) for body in taken],
        "taken-keyed": [
            Request("POST", "/bookings", body, readers[0], is_keyed=True) for body in taken
        ],
    }


def _cpu_time(application: Any, requests: list[Request]) -> int:
    """Return the CPU time of `REQUESTS` requests, in nanoseconds."""
    connection.ensure_connection()
    schedstat = Path(SCHEDSTAT.format(connection.connection.info.backend_pid))
    before = _nanoseconds(schedstat)
    for number in range(REQUESTS):
        request = requests[number % len(requests)]
        status = _send(application, request)
        # Each POST request tries to book a time that is already taken.
        if status != (409 if request.method == "POST" else 200):
            raise AssertionError(f"{status} for {request.method} {request.target}")
    return _nanoseconds(schedstat) - before


def _nanoseconds(schedstat: Path) -> int:
    """Return the CPU time that PostgreSQL and this process have used so far."""
    return int(schedstat.read_text().split()[0]) + process_time_ns()


def _send(application: Any, request: Request) -> int:
    """Send a request through the application, and return the status of the response."""
    path, _, query = request.target.partition("?")
    environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "CONTENT_LENGTH": str(len(request.body)) if request.body else "",
        "CONTENT_TYPE": "application/json" if request.body else "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
        "HTTP_ACCEPT": "*/*",
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(request.body),
        "wsgi.errors": sys.stderr,
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        **({"HTTP_AUTHORIZATION": f"Bearer {request.token}"} if request.token else {}),
        **({"HTTP_IDEMPOTENCY_KEY": uuid4().hex} if request.is_keyed else {}),
    }
    statuses: list[int] = []

    def start_response(status: str, headers: Any, error: Any = None) -> Any:
        statuses.append(int(status[:3]))

    response = application(environ, start_response)
    b"".join(response)
    response.close()
    return statuses[0]
