"""The counters of a web process: requests, their duration, their waits, and what apps count.

Every label has a small, fixed set of values, so that no client can create new time series. A view
is named by the template of its route. All unknown methods share a name, and so do all unknown
paths.
"""

import re
from functools import cache
from typing import NamedTuple

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, values

from bookit.database.usage import usage
from bookit.metrics import directory

# If PROMETHEUS_MULTIPROC_DIR is set, prometheus_client by default keeps the counters of every
# process in files. Only gunicorn's workers need these files: `directory.shared` is None in commands
# and in workers of the job queue.
values.ValueClass = (
    values.MultiProcessValue(directory.name) if directory.shared else values.MutexValue
)

# By default, `/metrics` would also contain the time at which each series began. No panel of the
# dashboard and no alert uses these times.
disable_created_metrics()

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
# The names that replace the view if a request reaches no view.
STATIC, UNKNOWN = "static", "unknown"
# The upper limits of the histogram's buckets, in seconds. They range from the duration of a cached
# page to the default time limit of a request.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

#: The metrics of this process. Under gunicorn, `/metrics` reads the files of all processes instead.
REGISTRY = CollectorRegistry()

# Each entry of a file contains the help text of its metric, so these texts are short.
REQUESTS = Counter(
    "bookit_http_requests_total",
    "Requests, by view (route template), method and status.",
    ["view", "method", "status"],
    registry=REGISTRY,
)
DURATION = Histogram(
    "bookit_http_request_duration_seconds",
    "Time from the start of a request's handling to its response.",
    ["view", "method"],
    buckets=BUCKETS,
    registry=REGISTRY,
)
QUEUED = Counter(
    "bookit_http_queued_seconds_total",
    "Time that complete requests waited for a thread.",
    registry=REGISTRY,
)
DATABASE_WAITS = Counter(
    "bookit_database_waits_total",
    "Responses of PostgreSQL that requests waited for.",
    registry=REGISTRY,
)
DATABASE_SECONDS = Counter(
    "bookit_database_wait_seconds_total",
    "Time that requests waited for PostgreSQL.",
    registry=REGISTRY,
)

CATALOG_READS = Counter(
    "bookit_catalog_reads_total",
    "Catalog reads, by the database that answered: replica or primary. Only with replicas.",
    ["source"],
    registry=REGISTRY,
)

# A request's wait for a thread is counted only if it is longer than this many seconds. A shorter
# wait only shows that the thread had to wake up.
SHORTEST_WAIT = 0.001

# A parameter in a route: `<name>` or `<converter:name>`.
PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")


class _Series(NamedTuple):
    """The time series to which a request is added."""

    requests: Counter
    duration: Histogram


@cache
def _series(route: str | None, method: str, status: int) -> _Series:
    """Return the time series of requests with this route, method and status.

    Each argument has few values, so the cache is small.
    """
    view = view_name(route)
    return _Series(
        REQUESTS.labels(view, method, str(status)),
        DURATION.labels(view, method),
    )


@cache
def _catalog_reads(source: str) -> Counter:
    """Return the time series of the catalog reads that `source` has answered."""
    return CATALOG_READS.labels(source)


def view_name(route: str | None) -> str:
    """Return the name of a view: its route as a template, for example `/services/{pk}`.

    All pages of the admin site share one name, because the site has a hundred routes.
    """
    if route in (None, STATIC, UNKNOWN):
        return route or UNKNOWN
    if route.startswith("admin"):
        return "/admin/"
    return "/" + PARAMETER.sub(r"{\1}", route)


def record(
    request: HttpRequest, response: HttpResponse, *, seconds: float, queued: float = 0.0
) -> None:
    """Count a request that took `seconds` after it had waited `queued` seconds for a thread."""
    if not directory.recording:
        return
    match = request.resolver_match
    if match:
        route = match.route
    elif request.path_info.startswith(settings.STATIC_URL) and response.status_code < 400:
        route = STATIC
    else:
        route = UNKNOWN
    method = request.method if request.method in METHODS else OTHER
    series = _series(route, method, response.status_code)
    series.requests.inc()
    series.duration.observe(seconds)
    if queued > SHORTEST_WAIT:
        QUEUED.inc(queued)
    if usage.waits:
        DATABASE_WAITS.inc(usage.waits)
        DATABASE_SECONDS.inc(usage.seconds)
        usage.waits, usage.seconds = 0, 0.0
    if usage.source:
        _catalog_reads(usage.source).inc()
        usage.source = ""


class EventCounter:
    """A counter without labels, with which an app counts events."""

    def __init__(self, name: str, text: str) -> None:
        self._counter = Counter(name, text, registry=REGISTRY)

    def increment(self) -> None:
        """Count an event, if this process has space for its counters."""
        if directory.recording:
            self._counter.inc()
