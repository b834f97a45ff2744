"""How many jobs the workers have run, why jobs failed, and the outbox of jobs."""

from django.db import models
from uuid_utils.compat import uuid7

from bookit.database.citus.layout import Layout


class JobTally(models.Model):
    """The number of runs of a task's jobs that had the same outcome and a similar duration.

    procrastinate deletes jobs that succeed. So workers count each run of a job, and add the counts
    to this table every few seconds. A job that is retried counts once for each run.
    """

    id = models.BigAutoField(primary_key=True)
    task = models.CharField(max_length=128)
    outcome = models.CharField(max_length=10)
    # Each run took at most this many seconds, and more than the next smaller bucket; see
    # `bookit.jobs.tally.BUCKETS`.
    bucket = models.FloatField()
    jobs = models.BigIntegerField()
    # The total duration of these runs.
    seconds = models.FloatField()

    class Meta:
        db_table = "bookit_jobtally"
        constraints = [
            models.UniqueConstraint(
                fields=["task", "outcome", "bucket"], name="job_tally_one_per_bucket"
            ),
        ]

    def __str__(self) -> str:
        """Return the task and the outcome."""
        return f"{self.task}: {self.outcome}"


class JobFailure(models.Model):
    """The last error of a job that has failed, or that will run again.

    procrastinate deletes jobs with SQL, so Django cannot delete this row with its job. Instead, the
    migration that creates the table adds a foreign key with ON DELETE CASCADE.
    """

    job = models.OneToOneField(
        "procrastinate.ProcrastinateJob",
        on_delete=models.DO_NOTHING,
        primary_key=True,
        db_constraint=False,
        related_name="failure",
    )
    at = models.DateTimeField()
    error = models.TextField(
        help_text=(
            "The class of the error and the first line of its message, without email addresses; or "
            "that the worker died or lost its connection."
        )
    )

    class Meta:
        db_table = "bookit_jobfailure"

    def __str__(self) -> str:
        return self.error


class Outbox(models.Model):
    """A job that a change on a calendar has caused, and that is not in the job queue yet.

    The table is empty unless the database is distributed; see `bookit.jobs.outbox`.
    """

    layout = Layout.BY_CALENDAR

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    calendar_id = models.UUIDField()
    queue = models.CharField(max_length=128)
    task = models.CharField(max_length=128)
    args = models.JSONField()

    class Meta:
        db_table = "bookit_outbox"

    def __str__(self) -> str:
        """Return the task and its arguments."""
        return f"{self.task}: {self.args}"
