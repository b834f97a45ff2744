"""Runs jobs as a worker does, but in the process and the transaction of a test."""

from inspect import iscoroutinefunction

from asgiref.sync import async_to_sync
from django.db import connection
from procrastinate.contrib.django import app
from procrastinate.contrib.django.models import ProcrastinateJob


def work():
    """Run the jobs in the queue, and the jobs that these enqueue, until the queue is empty."""
    while job := ProcrastinateJob.objects.filter(status="todo").order_by("id").first():
        task = app.tasks[job.task_name]
        # Some jobs are enqueued by SQL, which names the queue itself.
        assert job.queue_name == task.queue
        do = async_to_sync(task.func) if iscoroutinefunction(task.func) else task.func
        do(**job.args)
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM procrastinate_jobs WHERE id = %s", [job.pk])
