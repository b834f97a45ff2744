"""What admin pages of several apps share."""

from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from procrastinate.contrib.django import app
from procrastinate.contrib.django.admin import ProcrastinateJobAdmin
from procrastinate.contrib.django.models import ProcrastinateJob
from procrastinate.exceptions import UniqueViolation

admin.site.site_header = "BookIt"
admin.site.site_title = "BookIt"
admin.site.index_title = "Administration"


class ReadOnlyAdmin(admin.ModelAdmin):
    """Rows that services write and people only look at."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse."""
        return False


class StampedAdmin(admin.ModelAdmin):
    """Rows with an id and a time of making, which a page for a new one has no use for."""

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fields, without those that only a stored row has."""
        fieldsets = super().get_fieldsets(request, obj)
        if obj is not None:
            return fieldsets
        unknown = {"id", "created_at"}
        return [
            (
                name,
                {**options, "fields": [each for each in options["fields"] if each not in unknown]},
            )
            for name, options in fieldsets
        ]


admin.site.unregister(ProcrastinateJob)


@admin.register(ProcrastinateJob)
class JobAdmin(ProcrastinateJobAdmin):
    """Jobs that wait, are being done or have failed; those that succeeded are gone."""

    list_filter = ["status", "task_name", "scheduled_at"]
    search_fields = ["id", "task_name"]
    ordering = ["-id"]
    show_full_result_count = False
    # Of procrastinate's own, one runs again what is still running, and two give jobs up.
    actions = ["retry_failed"]

    def has_retry_permission(self, request: HttpRequest) -> bool:
        """Return whether somebody may have jobs done again; nobody changes one by hand."""
        return request.user.has_perm("procrastinate.change_procrastinatejob")

    @admin.action(description="Retry failed jobs", permissions=["retry"])
    def retry_failed(self, request: HttpRequest, queryset: QuerySet[ProcrastinateJob]) -> None:
        """Have the selected jobs done again, as far as they failed."""
        retried = 0
        for job in queryset.filter(status="failed"):
            try:
                with transaction.atomic():
                    app.job_manager.retry_job_by_id(job.pk, retry_at=timezone.now())
                retried += 1
            except UniqueViolation:
                message = f"{job}: a job that does the same is waiting already."
                self.message_user(request, message, messages.WARNING)
        self.message_user(request, f"{retried} will be tried again.", messages.SUCCESS)
