"""The page `/metrics`, and the check whether a client may see it."""

from collections.abc import Iterator

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.request import split_domain_port
from django.utils.crypto import constant_time_compare
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from bookit import deadlines
from bookit.api.addresses import is_from_this_machine, is_loopback
from bookit.errors import problems
from bookit.metrics import database, directory
from bookit.metrics.process import REGISTRY

# Seconds that all SQL statements of a response may take together. If they take longer, the response
# lacks the metrics from PostgreSQL, which is better than no response.
DATABASE_LIMIT = 1.0


class _Database(Collector):
    """The metrics from PostgreSQL."""

    def collect(self) -> Iterator[Metric]:
        # Start the limit after the processes' files are added up, because it is only for SQL.
        deadlines.shorten(DATABASE_LIMIT)
        return database.collect()


@csrf_exempt
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Return all metrics to programs on this machine, and to programs that send METRICS_TOKEN."""
    refusal = _refusal(request)
    if refusal is not None:
        return refusal
    if not directory.recording:
        return problems.response(
            "service_unavailable", "There is no folder or no space for metrics. The log says why."
        )
    registry = CollectorRegistry()
    if directory.shared:
        MultiProcessCollector(registry, directory.shared)
    else:
        registry.register(REGISTRY)
    registry.register(_Database())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)


# Mark every request to the view as costly: adding up the files of many processes takes some CPU
# time, so only some threads may do it at the same time. This is the value of the constant `ALWAYS`
# of `bookit.runtime.costly`, which is in a layer above.
metrics.costly_with = ()  # type: ignore[attr-defined]


def _refusal(request: HttpRequest) -> HttpResponse | None:
    """Return the response that refuses a client, or None if the client may see the metrics."""
    if is_from_this_machine(request) and _names_this_machine(request):
        return None
    if not settings.METRICS_TOKEN:
        return problems.response(
            "permission_denied",
            "Metrics are for programs on the server itself. METRICS_TOKEN opens them to others.",
        )
    scheme, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() == "bearer" and constant_time_compare(token.strip(), settings.METRICS_TOKEN):
        return None
    refused = problems.response("token_invalid" if token else "not_authenticated")
    refused["WWW-Authenticate"] = "Bearer"
    return refused


def _names_this_machine(request: HttpRequest) -> bool:
    """Return whether the `Host` header is missing, or names this machine.

    The owner of another site can let the name of that site resolve to 127.0.0.1. A browser on this
    machine then sends the requests of that site's pages here. Their `Host` header names that site.
    """
    host = request.META.get("HTTP_HOST", "")
    domain, _ = split_domain_port(host)  # empty if the host is not valid
    return not host or domain == "localhost" or is_loopback(domain)
