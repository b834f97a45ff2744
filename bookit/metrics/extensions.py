"""The extension point of this room."""

from collections.abc import Callable, Iterable

from prometheus_client.core import Metric

from bookit.extensions import Extensions

#: Functions that return metrics from PostgreSQL. They must cost the same however many rows there
#: are.
COLLECTORS: Extensions[Callable[[], Iterable[Metric]]] = Extensions()
