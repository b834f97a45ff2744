"""Fixtures for the tests of accounts."""

import psycopg
import pytest

from bookings.tests.workers import database_url


@pytest.fixture
def no_jobs():
    """Delete all jobs before and after the test; Django does not empty the table of jobs."""
    for step in ("before", "after"):
        with psycopg.connect(database_url(), autocommit=True) as session:
            session.execute("DELETE FROM procrastinate_jobs")
        if step == "before":
            yield
