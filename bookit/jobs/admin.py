"""Jobs in the admin site."""

import json

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from procrastinate.contrib.django import app
from procrastinate.contrib.django.admin import ProcrastinateJobAdmin
from procrastinate.contrib.django.models import ProcrastinateJob
from procrastinate.exceptions import UniqueViolation

from bookit.adminsite.filters import one_of
from bookit.adminsite.pages import StrictAdmin
from bookit.jobs import home  # noqa: F401 - the import adds its card to the home page

admin.site.unregister(ProcrastinateJob)
# The admin site shows this text as the title of a job. procrastinate's own text contains all
# arguments, including the body of an email.
ProcrastinateJob.__str__ = lambda job: f"Job {job.pk}, {job.task_name}"  # type: ignore[method-assign]


# The page shows at most this many characters of a job's arguments.
MAX_ARGUMENTS_LENGTH = 500


@admin.register(ProcrastinateJob)
class JobAdmin(StrictAdmin, ProcrastinateJobAdmin):
    """The admin pages of jobs that wait, run or have failed. Jobs that succeed are deleted."""

    list_filter = ["status", ("task_name", one_of(lambda: app.tasks)), "scheduled_at"]
    search_fields = ["id", "task_name"]
    ordering = ["-id"]
    # procrastinate's own actions are not offered: one of them restarts jobs that are still running,
    # and two of them abandon jobs.
    actions = ["retry_failed"]

    @admin.display(description="Args")
    def pretty_args(self, instance: ProcrastinateJob) -> str:
        """Return the arguments of a job: ids and times, but not the body of an email."""
        shown = {
            name: "..." if isinstance(value, dict) else value
            for name, value in instance.args.items()
        }
        return json.dumps(shown)[:MAX_ARGUMENTS_LENGTH]

    def has_retry_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may retry jobs. Nobody may edit jobs."""
        return request.user.has_perm("procrastinate.change_procrastinatejob")

    @admin.action(description="Retry failed jobs", permissions=["retry"])
    def retry_failed(self, request: HttpRequest, queryset: QuerySet[ProcrastinateJob]) -> None:
        """Retry the selected jobs that have failed."""
        retried = 0
        for job in queryset.filter(status="failed"):
            try:
                with transaction.atomic():
                    app.job_manager.retry_job_by_id(job.pk, retry_at=timezone.now())
                retried += 1
            except UniqueViolation:
                message = f"{job}: the same job is already waiting."
                self.message_user(request, message, messages.WARNING)
        self.message_user(request, f"{retried} will be retried.", messages.SUCCESS)
