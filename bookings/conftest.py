"""Fixtures for the tests of bookings."""

import psycopg
import pytest

from bookings.tests.workers import Worker, database_url


@pytest.fixture
def no_jobs():
    """Delete the jobs of other tests, because Django does not empty the table of jobs."""
    with psycopg.connect(database_url(), autocommit=True) as session:
        session.execute("DELETE FROM procrastinate_jobs")


@pytest.fixture
def worker(tmp_path, no_jobs):
    started = []

    def start(**variables):
        started.append(Worker(tmp_path / "output", **variables))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()
