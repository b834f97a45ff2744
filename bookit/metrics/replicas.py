"""The metrics of replicas: which of them are in use, and how far they are behind."""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from bookit.database.replicas import replicas

# A scrape waits at most this many seconds for this process's first look at each replica.
PATIENCE = 1.0


def collect() -> Iterator[Metric]:
    """Yield the metrics of the replicas, as this process sees them."""
    in_use = GaugeMetricFamily(
        "bookit_replica_in_use", "Whether a replica answers catalog reads.", labels=["replica"]
    )
    lag = GaugeMetricFamily(
        "bookit_replica_lag_seconds",
        "How far a replica is behind the primary.",
        labels=["replica"],
    )
    for each in replicas():
        each.was_seen.wait(PATIENCE)
        in_use.add_metric([each.alias], each.is_in_use)
        lag.add_metric([each.alias], each.lag)
    yield in_use
    yield lag
