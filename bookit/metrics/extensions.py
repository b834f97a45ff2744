"""The extension point of the metrics, to which other apps add functions."""

from collections.abc import Callable, Iterable

from prometheus_client.core import Metric

from bookit.extensions import Extensions

#: Functions that return metrics from PostgreSQL. Their cost must not grow with the number of rows.
COLLECTORS: Extensions[Callable[[], Iterable[Metric]]] = Extensions()
