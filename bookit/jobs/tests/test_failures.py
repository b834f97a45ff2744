"""The last error of a job is kept until the job succeeds or is deleted."""

import asyncio
from time import process_time

import pytest
from django.db import connection
from django.utils import timezone
from procrastinate.contrib.django import app
from procrastinate.contrib.django.models import ProcrastinateJob
from procrastinate.exceptions import ConnectorException

from bookit.jobs import failures
from bookit.jobs.models import JobFailure
from bookit.jobs.tests.test_tally import Unavailable, run_workers


def record(job_id, error):
    asyncio.run(failures.record(app, job_id=job_id, error=error, at=timezone.now()))


@pytest.mark.django_db(transaction=True)
def test_a_worker_keeps_the_error_of_each_job_that_fails():
    retried = app.configure_task("bookings.follow_up").defer(event_ids=7)
    failed = app.configure_task("bookings.complete").defer(nonsense=1)
    app.configure_task("bookit.prune_jobs").defer(timestamp=0)  # succeeds
    run_workers()
    kept = {failure.job_id: failure.error for failure in JobFailure.objects.all()}
    assert kept.keys() == {retried, failed}
    assert kept[failed].startswith("TypeError: ")
    assert "nonsense" in kept[failed]


@pytest.mark.django_db(transaction=True)
def test_the_error_is_deleted_with_its_job():
    job_id = app.configure_task("bookings.complete").defer(nonsense=1)
    run_workers()
    assert JobFailure.objects.filter(job_id=job_id).exists()
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM procrastinate_jobs")
    assert not JobFailure.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_job_keeps_only_its_last_error():
    job_id = app.configure_task("bookit.prune_jobs").defer(timestamp=0)
    record(job_id, "the first")
    record(job_id, "the second")
    assert [failure.error for failure in JobFailure.objects.all()] == ["the second"]


@pytest.mark.django_db(transaction=True)
def test_the_error_of_a_deleted_job_is_not_kept():
    record(2**40, "too late")
    assert not JobFailure.objects.exists()
    assert not ProcrastinateJob.objects.exists()


def test_an_error_that_cannot_be_stored_does_not_stop_the_worker():
    asyncio.run(failures.record(Unavailable(), job_id=1, error="x", at=timezone.now()))
    # The control: without `record`, the error reaches the caller.
    with pytest.raises(ConnectorException):
        asyncio.run(Unavailable().execute_query_async("SELECT 1"))


# If `line` is None, the test checks only the length, and what the line must not contain.
@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("No such seat."), "ValueError: No such seat."),
        (ValueError(), "ValueError"),
        (ValueError("duplicate key\nDETAIL: Key (name)=(Ada)"), "ValueError: duplicate key"),
        (ValueError("{'ada@example.com': (550, b'No <ada@b.pt>')}"), None),
        (ValueError("a\0b" * 1000), None),
        # The only word is cut, so it is left out: it could be a part of an address.
        (ValueError("a" * 1_000_000), "ValueError"),
        # `in_one_line` cuts an error after 2000 characters, here at each place in an address. The
        # addresses before the cut become so short that the line ends at the cut.
        *((ValueError("b" * n + " ada.l@example.com" * 120), None) for n in range(1, 19)),
        # These errors have about 1800 to 2500 characters.
        *((ValueError("Rejected: " + "ada.l@example.com " * n), None) for n in range(100, 140)),
    ],
)
def test_an_error_is_one_line_without_email_addresses(error, line):
    began = process_time()
    found = failures.in_one_line(error)
    assert process_time() - began < 1
    assert found == line or line is None
    assert len(found) <= failures.MAX_LENGTH
    for hidden in ("ada", "@example.com", "@b.pt", "Ada", "\0", "\n"):
        assert hidden not in found
