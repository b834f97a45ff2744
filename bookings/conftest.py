"""Fixtures for the tests of bookings."""

import pytest

from bookings.tests.workers import Worker


@pytest.fixture
def worker(tmp_path):
    """Return a function that starts a worker. The workers are killed after the test."""
    started = []

    def start(**variables):
        started.append(Worker(tmp_path / "output", **variables))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()
