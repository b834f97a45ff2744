"""`manage.py procrastinate`, whose worker limits mails and webhooks separately."""

from typing import Any

from procrastinate.contrib.django.management.commands import procrastinate

from bookit.jobs import queues as jobs


class Command(procrastinate.Command):
    """Procrastinate's own command with BookIt's worker."""

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one of procrastinate's commands."""
        if options["command"] == "worker":
            options["func"] = jobs.run_workers
        super().handle(*args, **options)
