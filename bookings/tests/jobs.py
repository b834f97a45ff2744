"""Runs jobs as a worker does, but in the process and the transaction of a test."""

from inspect import iscoroutinefunction

from asgiref.sync import async_to_sync
from django.db import connection
from django.db.models import Q
from procrastinate.contrib.django import app
from procrastinate.contrib.django.models import ProcrastinateJob
from psycopg.types.json import Jsonb

from bookings import followup
from bookings.models import BookingEvent
from bookit.database.citus.nodes import is_distributed
from bookit.jobs.models import Outbox
from bookit.jobs.queues import MAILS


def work(*, until=None):
    """Run the jobs in the queue, and the jobs that these enqueue, until the queue is empty.

    Args:
        until: run only the jobs that are due at this time; by default, all jobs.
    """
    while job := _next_job(until):
        task = app.tasks[job.task_name]
        # Some jobs are enqueued by SQL, which must name the queue of the task.
        assert job.queue_name == task.queue
        do = async_to_sync(task.func) if iscoroutinefunction(task.func) else task.func
        # A job that is "todo" cannot enqueue itself again, because its queueing lock is taken. The
        # job of an email about a handover must be able to do so. Webhook jobs must not, because
        # their next attempts would run here without end.
        if job.queue_name == MAILS:
            _set_status(job, "doing")
        try:
            do(**job.args)
        except BaseException:
            _set_status(job, "todo")
            raise
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM procrastinate_jobs WHERE id = %s", [job.pk])


def _set_status(job, status):
    with connection.cursor() as cursor:
        cursor.execute("UPDATE procrastinate_jobs SET status = %s WHERE id = %s", [status, job.pk])


def _next_job(until):
    relay_jobs()
    jobs = ProcrastinateJob.objects.filter(status="todo").order_by("id")
    if until is not None:
        jobs = jobs.filter(Q(scheduled_at=None) | Q(scheduled_at__lte=until))
    return jobs.first()


def relay_jobs():
    """Enqueue the jobs in the outbox of a distributed database, in the transaction of the test."""
    for row in Outbox.objects.order_by("id") if is_distributed() else ():
        with connection.cursor() as cursor:
            cursor.execute("SELECT enqueue_job(%s, %s, %s)", [row.queue, row.task, Jsonb(row.args)])
        Outbox.objects.filter(calendar_id=row.calendar_id, pk=row.pk).delete()


def follow_events_up(event_ids, *, at):
    """Follow up events, as the job that is enqueued with them does."""
    calendars = set()
    # One test passes more ids than a query can have parameters.
    for begin in range(0, len(event_ids), 10_000):
        events = BookingEvent.objects.filter(pk__in=event_ids[begin : begin + 10_000])
        calendars.update(events.values_list("calendar_id", flat=True))
    followup.follow_up(calendar_ids=sorted(calendars), event_ids=event_ids, at=at)


def attendee_mail(event):
    """Return the arguments of the job that sends the email about an event to the attendee."""
    return {
        "calendar_id": str(event.calendar_id),
        "event_id": str(event.pk),
        "audience": "attendee",
    }
