"""What a worker does, in the process and the transaction of a test."""

from inspect import iscoroutinefunction

from asgiref.sync import async_to_sync
from django.db import connection
from procrastinate.contrib.django import app
from procrastinate.contrib.django.models import ProcrastinateJob


def work():
    """Do the jobs that wait, and those that they enqueue, until there is none."""
    while job := ProcrastinateJob.objects.filter(status="todo").order_by("id").first():
        task = app.tasks[job.task_name]
        # Some jobs are enqueued by SQL, which names the queue itself.
        assert job.queue_name == task.queue
        do = async_to_sync(task.func) if iscoroutinefunction(task.func) else task.func
        do(**job.args)
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM procrastinate_jobs WHERE id = %s", [job.pk])
