"""`manage.py procrastinate`, whose worker has separate limits for emails and webhooks."""

from functools import partial
from typing import Any

from procrastinate.contrib.django.management.commands import procrastinate

from bookit.database.direct import check_direct_url
from bookit.jobs import queues as jobs
from bookit.runtime.startup import load_templates
from bookit.tracing.start import export, trace_jobs


class Command(procrastinate.Command):
    """Procrastinate's own command with BookIt's worker."""

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one of procrastinate's commands."""
        if options["command"] == "worker":
            jobs.check_heartbeat_file()
            check_direct_url()
            load_templates()
            export("bookit-worker")
            options["func"] = partial(jobs.run_workers, middleware=trace_jobs())
        super().handle(*args, **options)
