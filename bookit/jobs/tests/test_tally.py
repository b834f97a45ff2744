"""Workers record how many jobs they have run, and the outcomes of these jobs."""

import asyncio
import math
from collections import Counter

import pytest
from procrastinate.contrib.django import app
from procrastinate.exceptions import ConnectorException

from bookit.jobs import queues
from bookit.jobs.models import JobTally
from bookit.jobs.tally import BUCKETS, FAILED, RETRIED, SUCCEEDED, Tally, totals

pytestmark = pytest.mark.django_db(transaction=True)


def outcomes():
    found = Counter()
    for row in totals():
        found[row["task"], row["outcome"]] += row["jobs"]
    return found


def run_workers():
    """Run the waiting jobs in this process, as `manage.py procrastinate worker` does."""

    async def run(worker_app):
        async with worker_app.open_async():
            await queues.run_workers(worker_app, wait=False)

    with app.replace_connector(app.connector.get_worker_connector()) as worker_app:
        asyncio.run(run(worker_app))


def test_a_worker_records_the_outcome_of_each_job():
    app.configure_task("bookit.prune_jobs").defer(timestamp=0)
    app.configure_task("bookings.follow_up").defer(event_ids=7)  # fails, and will be retried
    app.configure_task("bookings.complete").defer(nonsense=1)  # fails, and will not be retried
    run_workers()
    found = outcomes()
    assert found["bookit.prune_jobs", SUCCEEDED] == 1
    assert found["bookings.follow_up", RETRIED] == found["bookings.complete", FAILED] == 1
    app.configure_task("bookit.prune_jobs").defer(timestamp=0)
    run_workers()
    assert outcomes()["bookit.prune_jobs", SUCCEEDED] == 2


class Unavailable:
    """An app whose PostgreSQL does not respond."""

    async def execute_query_async(self, *arguments, **values):
        raise ConnectorException

    @property
    def connector(self):
        return self


def test_numbers_that_cannot_be_written_are_written_later():
    tally = Tally()
    tally.count("a", SUCCEEDED, 0.001)
    asyncio.run(tally.write(Unavailable()))
    tally.count("a", SUCCEEDED, 0.002)
    tally.count("a", SUCCEEDED, 1e9)

    async def write(worker_app):
        async with worker_app.open_async():
            await tally.write(worker_app)
            await tally.write(worker_app)  # Nothing is left to write.

    with app.replace_connector(app.connector.get_worker_connector()) as worker_app:
        asyncio.run(write(worker_app))
    rows = JobTally.objects.order_by("bucket").values_list("bucket", "jobs", "seconds")
    assert [*rows] == [(BUCKETS[0], 2, pytest.approx(0.003)), (math.inf, 1, 1e9)]


class Recorder:
    """An app that records the numbers of jobs that are written.

    During the first write, another job ends, and the worker is told to stop.
    """

    def __init__(self, tally, stopping):
        self.connector = self
        self.tally, self.stopping = tally, stopping
        self.jobs = []

    async def execute_query_async(self, statement, *, jobs, **values):
        self.jobs += jobs
        if len(self.jobs) == 1:
            self.stopping.set()
            self.tally.count("b", SUCCEEDED, 0.001)


def test_jobs_that_end_during_the_last_regular_write_are_counted(monkeypatch):
    monkeypatch.setattr("bookit.jobs.tally.PAUSE", 0.01)

    async def write():
        tally, stopping = Tally(), asyncio.Event()
        tally.count("a", SUCCEEDED, 0.001)
        recorder = Recorder(tally, stopping)
        await tally.write_regularly(recorder, stopping)
        return recorder.jobs

    assert asyncio.run(write()) == [1, 1]
