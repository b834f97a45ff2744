"""Jobs that send emails are enqueued once, whatever other transactions do at the same time."""

from datetime import UTC, datetime
from functools import partial

import pytest
from django.db import IntegrityError, transaction
from procrastinate.contrib.django.models import ProcrastinateJob

from bookit.mails import sending
from bookit.tests.crowd import (
    ask,
    at_once,
    behind_a_rival,
    deadlocks,
    starting_line,
    tally,
)

pytestmark = pytest.mark.django_db(transaction=True)

TASK = "accounts.send_mail"
# Counts the jobs that a worker could start now.
FREE_JOBS = """
SELECT count(*) FROM (SELECT id FROM procrastinate_jobs FOR UPDATE SKIP LOCKED) AS free
"""


def defer(*locks):
    sending.defer(TASK, {lock: ({"lock": lock}, None) for lock in locks})


def queueing_locks():
    """Return the queueing locks of all jobs, whatever their status."""
    return sorted(ProcrastinateJob.objects.values_list("queueing_lock", flat=True))


def test_a_job_has_the_arguments_and_the_time_that_it_was_enqueued_with():
    at = datetime(2026, 11, 21, 9, tzinfo=UTC)
    sending.defer(TASK, {"later": ({"kind": "invitation"}, at), "now": ({}, None)})
    later, now = ProcrastinateJob.objects.order_by("queueing_lock")
    assert (later.queue_name, later.task_name, later.status) == ("mails", TASK, "todo")
    assert (later.args, later.scheduled_at) == ({"kind": "invitation"}, at)
    assert (now.args, now.scheduled_at) == ({}, None)


def test_a_job_that_is_waiting_is_not_enqueued_again():
    defer("one")
    defer("one", "two")
    assert queueing_locks() == ["one", "two"]
    ProcrastinateJob.objects.filter(queueing_lock="one").update(status="succeeded")
    defer("one", "two")
    assert queueing_locks() == ["one", "one", "two"]


EARLY, LATE = (datetime(2026, 11, 21, hour, tzinfo=UTC) for hour in (9, 13))


@pytest.mark.parametrize(
    ("waiting", "wanted", "result"),
    [
        (LATE, None, None),
        (LATE, EARLY, EARLY),
        (EARLY, LATE, EARLY),
        (None, LATE, None),
    ],
)
def test_a_waiting_job_runs_at_the_earlier_of_its_own_time_and_the_new_time(
    waiting, wanted, result
):
    """A job that has failed waits up to an hour. Whoever requests the email again gets it now."""
    for scheduled_at in (waiting, wanted):
        sending.defer(TASK, {"reset": ({}, scheduled_at)})
    assert ProcrastinateJob.objects.get().scheduled_at == result


def test_a_waiting_job_that_is_to_run_immediately_has_all_of_its_attempts():
    sending.defer(TASK, {"reset": ({}, None)})
    ProcrastinateJob.objects.filter(status="todo").update(scheduled_at=LATE, attempts=7)
    sending.defer(TASK, {"reset": ({}, EARLY)})
    assert ProcrastinateJob.objects.get().attempts == 7
    sending.defer(TASK, {"reset": ({}, None)})
    assert ProcrastinateJob.objects.get().attempts == 0


def test_concurrent_transactions_enqueue_an_email_once():
    with starting_line("procrastinate_jobs") as start:
        outcomes = start([partial(defer, "one")] * 5)
    assert tally(outcomes) == {None: 5}
    assert queueing_locks() == ["one"]


def test_all_but_one_of_the_transactions_fail_without_on_conflict(monkeypatch):
    """Control for the test above."""
    plain, _, _ = sending.DEFER.partition("ON CONFLICT")
    monkeypatch.setattr(sending, "DEFER", plain)
    with starting_line("procrastinate_jobs") as start:
        outcomes = start([partial(defer, "one")] * 5)
    assert tally(outcomes) == {None: 1, IntegrityError: 4}


def test_an_email_is_enqueued_if_the_transaction_that_enqueued_it_first_is_rolled_back():
    outcomes = behind_a_rival([partial(defer, "one")] * 2, rival=partial(defer, "one"))
    assert tally(outcomes) == {None: 2}
    assert queueing_locks() == ["one"]


def test_transactions_that_enqueue_the_same_emails_in_opposite_orders_do_not_deadlock():
    before, locks = deadlocks(), [f"lock {number:03}" for number in range(100)]
    with starting_line("procrastinate_jobs") as start:
        outcomes = start([partial(defer, *locks), partial(defer, *reversed(locks))] * 2)
    assert tally(outcomes) == {None: 4}
    assert deadlocks() == before
    assert queueing_locks() == locks


@pytest.mark.parametrize(
    ("on_conflict", "free"),
    [(None, 0), ("ON CONFLICT (queueing_lock) WHERE status = 'todo' DO NOTHING", 1)],
    ids=["locks the job", "control"],
)
def test_no_worker_starts_a_waiting_job_before_the_transaction_is_committed(
    monkeypatch, on_conflict, free
):
    """A transaction that enqueues a waiting job again locks the job until it commits.

    Otherwise, a worker could compose the email without the changes of the transaction.
    """
    defer("one")
    if on_conflict:
        plain, _, _ = sending.DEFER.partition("ON CONFLICT")
        monkeypatch.setattr(sending, "DEFER", plain + on_conflict)
    with transaction.atomic():
        defer("one")
        [outcome] = at_once([partial(ask, FREE_JOBS)])
    assert outcome.value == free
