"""Fixtures for the tests of bookings."""

import pytest

from bookings.tests.workers import Worker


@pytest.fixture
def worker(tmp_path):
    started = []

    def start(**variables):
        started.append(Worker(tmp_path / "output", **variables))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()
