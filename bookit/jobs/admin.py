"""Jobs in the admin site."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext, ngettext, ngettext_lazy
from django.utils.translation import gettext_lazy as _
from procrastinate.contrib.django import app
from procrastinate.contrib.django.admin import ProcrastinateJobAdmin
from procrastinate.contrib.django.models import ProcrastinateEvent, ProcrastinateJob
from procrastinate.exceptions import UniqueViolation

from bookit.adminsite.cards import Card, CardsAdmin
from bookit.adminsite.cells import badge, code, exactly, link, moment
from bookit.adminsite.filters import one_of
from bookit.adminsite.refusals import Refused
from bookit.jobs import home  # noqa: F401 - the import adds a card to the home page
from bookit.jobs.extensions import JOB_SUBJECTS, TASK_WORDS, Subject

admin.site.unregister(ProcrastinateJob)
# The admin site shows this text as the title of a job. procrastinate's own text contains all
# arguments, including the body of an email.
ProcrastinateJob.__str__ = lambda job: f"Job {job.pk}, {job.task_name}"  # type: ignore[method-assign]


# By default, the admin site would call the jobs "procrastinate jobs". Migrations do not record a
# name that is set here.
ProcrastinateJob._meta.verbose_name = _("job")
ProcrastinateJob._meta.verbose_name_plural = _("jobs")

# The page shows at most this many characters of a job's arguments.
MAX_ARGUMENTS_LENGTH = 500
# The page shows at most this many entries of a job's history, the latest ones. Each retry adds
# several entries.
MAX_EVENTS = 50

STATES = {
    "todo": _("waiting"),
    "doing": _("running"),
    "failed": _("failed"),
    "succeeded": _("succeeded"),
    "cancelled": _("cancelled"),
    "aborted": _("aborted"),
}
EVENTS = {
    "deferred": _("Enqueued"),
    "scheduled": _("Scheduled for"),
    "started": _("Started"),
    "deferred_for_retry": _("Will run again"),
    "failed": _("Failed"),
    "retried": _("Retried"),
    "succeeded": _("Succeeded"),
    "cancelled": _("Cancelled"),
    "abort_requested": _("Told to stop"),
    "aborted": _("Stopped"),
}
GIVEN_UP = _("BookIt has given up on this job. Once the cause is gone, retry it.")

for _task, _words in {
    "bookit.retry_stalled_jobs": _("Put the jobs of dead workers back"),
    "bookit.prune_jobs": _("Delete old jobs"),
    "bookit.prune_mail_counts": _("Delete old counts of emails"),
    "bookit.prune_kept_responses": _("Delete old responses to idempotent requests"),
}.items():
    TASK_WORDS.add(_task)(_words)


def _can_be_retried(job: ProcrastinateJob, *, at: datetime) -> bool:
    """Return whether a job has failed and will not run by `at`."""
    will_run_later = job.scheduled_at is not None and job.scheduled_at > at
    is_delayed = job.status == "todo" and job.attempts > 0 and will_run_later
    return job.status == "failed" or is_delayed


def find_subjects(jobs: Iterable[ProcrastinateJob]) -> None:
    """Set the attribute `subject` of each job: what the job is about, or None.

    The number of queries depends on the number of different tasks, but not on the number of jobs.
    """
    by_find: dict[Any, list[Any]] = {}
    for job in jobs:
        job.subject = None  # type: ignore[attr-defined]
        find = JOB_SUBJECTS.get(job.task_name)
        if find is not None:
            by_find.setdefault(find, []).append(job)
    for find, alike in by_find.items():
        # A job that was enqueued by hand can have any JSON as its arguments.
        given = [job.args if isinstance(job.args, dict) else {} for job in alike]
        for job, subject in zip(alike, find(given), strict=True):
            job.subject = subject


@admin.register(ProcrastinateJob)
class JobAdmin(CardsAdmin, ProcrastinateJobAdmin):
    """The admin pages of jobs that have not succeeded. Jobs that succeed are deleted."""

    list_title = _("Jobs")
    list_display = ["what", "about", "state", "last_error", "due"]
    list_display_links = ["what"]
    list_filter = ["status", ("task_name", one_of(lambda: app.tasks)), "scheduled_at"]
    search_fields = ["id", "task_name"]
    fields = ["task_name"]
    inlines = []
    # These columns need no subjects, which are looked up only for the jobs on a page of the list.
    csv_columns = ["task_name", "status", "attempts", "queue_name", "scheduled_at", "error"]
    ordering = ["-id"]
    # procrastinate's own actions are not offered: one of them restarts jobs that are still running,
    # and two of them abandon jobs.
    actions = ["retry_failed"]
    buttons = ["retry_failed"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ProcrastinateJob]:
        """Return the jobs with their errors, but without procrastinate's events."""
        jobs = super(ProcrastinateJobAdmin, self).get_queryset(request)
        return jobs.select_related("failure")

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Return the list, after looking up the subjects of all jobs on its page together."""
        changelist = super().get_changelist_instance(request)
        changelist.result_list = [*changelist.result_list]
        find_subjects(changelist.result_list)
        return changelist

    @admin.display(description=_("What"))
    def what(self, job: ProcrastinateJob) -> Any:
        """Return what the job does, with its id and the name of its task."""
        return format_html(
            '{}<span class="quiet">{} &middot; {}</span>', self.heading(job), job.pk, job.task_name
        )

    @admin.display(description=_("About"), empty_value="")
    def about(self, job: ProcrastinateJob) -> Any:
        """Return what the job is about, for example a booking; empty if it has no subject."""
        subject: Subject | None = job.subject  # type: ignore[attr-defined]
        return link(subject.path, subject.words) if subject else ""

    @admin.display(description=_("State"))
    def state(self, job: ProcrastinateJob) -> Any:
        """Return the state of the job, and how often it has run."""
        state = badge(job.status, STATES.get(job.status, job.status))
        if job.status == "todo" and hasattr(job, "failure"):
            state = badge("failing", _("will be retried"))
        if not job.attempts:
            return state
        words = ngettext("%(number)s attempt", "%(number)s attempts", job.attempts)
        return format_html(
            '{}<span class="quiet below">{}</span>', state, words % {"number": job.attempts}
        )

    @admin.display(description=_("Last error"), empty_value="")
    def last_error(self, job: ProcrastinateJob) -> Any:
        """Return the last error of the job, and when it occurred."""
        failure = getattr(job, "failure", None)
        if failure is None:
            return ""
        return format_html(
            '{}<span class="quiet">{}</span>', code(failure.error), moment(failure.at)
        )

    @admin.display(description=_("Last error"))
    def error(self, job: ProcrastinateJob) -> str:
        """Return the last error of the job, for the CSV file."""
        return job.failure.error if hasattr(job, "failure") else ""

    @admin.display(description=_("Next attempt"), empty_value="")
    def due(self, job: ProcrastinateJob) -> Any:
        """Return when the job will run."""
        if job.status != "todo":
            return ""
        return moment(job.scheduled_at) or _("as soon as possible")

    def heading(self, row: ProcrastinateJob) -> Any:
        """Return what the job does."""
        return TASK_WORDS.get(row.task_name, row.task_name)

    def offers(self, row: ProcrastinateJob, action: str) -> bool:
        """Return whether the job can be retried."""
        return _can_be_retried(row, at=timezone.now())

    def cards(self, request: HttpRequest, row: ProcrastinateJob) -> Sequence[Card]:
        """Return the job, its arguments and its history."""
        find_subjects([row])
        zone = request.user.timezone  # type: ignore[union-attr]
        failure = getattr(row, "failure", None)
        facts = [
            (_("State"), self.state(row)),
            (_("About"), self.about(row)),
            (_("Last error"), code(failure.error) if failure else ""),
            (_("Occurred at"), exactly(failure.at, zone) if failure else ""),
            (
                _("Next attempt"),
                self.due(row) and (exactly(row.scheduled_at, zone) or self.due(row)),
            ),
            (_("Task"), code(row.task_name)),
            (_("Queue"), row.queue_name),
            (_("Lock"), row.lock or row.queueing_lock),
        ]
        events = ProcrastinateEvent.objects.filter(job=row).order_by("-id")[:MAX_EVENTS]
        lines = [(EVENTS.get(each.type, each.type), exactly(each.at, zone)) for each in events]
        return [
            Card(_("Job"), facts=facts, note=GIVEN_UP if row.status == "failed" else ""),
            Card(_("History"), columns=[_("What happened"), _("When")], lines=lines),
            Card(_("Arguments"), text=self.pretty_args(row)),
        ]

    @admin.display(description="Args")
    def pretty_args(self, instance: ProcrastinateJob) -> str:
        """Return the arguments of a job, with `...` in place of each object, such as an email."""
        args = instance.args if isinstance(instance.args, dict) else {}
        shown = {name: "..." if isinstance(value, dict) else value for name, value in args.items()}
        return json.dumps(shown, indent=2)[:MAX_ARGUMENTS_LENGTH]

    def has_retry_permission(self, request: HttpRequest) -> bool:
        """Return whether the user has the permission to change jobs, which only allows retrying."""
        return request.user.has_perm("procrastinate.change_procrastinatejob")

    @admin.action(description=_("Retry"), permissions=["retry"])
    def retry_failed(self, request: HttpRequest, queryset: QuerySet[ProcrastinateJob]) -> None:
        """Retry the selected jobs now, whether BookIt has given up on them or not."""
        at = timezone.now()

        @transaction.atomic
        def retry(job: ProcrastinateJob) -> None:
            # Another request may have retried the job, and a worker may be running it.
            jobs = ProcrastinateJob.objects.filter(pk=job.pk)
            current = jobs.select_for_update().first()
            if current is None or not _can_be_retried(current, at=at):
                raise Refused(gettext("Only jobs that have failed can be retried."))
            if current.status == "todo":
                jobs.update(scheduled_at=at)
            else:
                try:
                    app.job_manager.retry_job_by_id(job.pk, retry_at=at)
                except UniqueViolation:
                    raise Refused(gettext("The same job is already waiting.")) from None
            self.log_change(request, job, gettext("Retried."))

        done = ngettext_lazy("%d job will run again now.", "%d jobs will run again now.")
        self.apply(request, queryset, retry, done=done)
