import django.db.models.deletion
from django.db import migrations, models

# Deletes the error of a job when the job is deleted, by Django or by SQL. The foreign keys that
# Django creates have no ON DELETE CASCADE.
OF_JOB = """
ALTER TABLE bookit_jobfailure ADD CONSTRAINT job_failure_of_job
FOREIGN KEY (job_id) REFERENCES procrastinate_jobs ON DELETE CASCADE
"""


class Migration(migrations.Migration):
    dependencies = [("jobs", "0002_tally")]

    operations = [
        migrations.CreateModel(
            name="JobFailure",
            fields=[
                (
                    "job",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        primary_key=True,
                        related_name="failure",
                        serialize=False,
                        to="procrastinate.procrastinatejob",
                    ),
                ),
                ("at", models.DateTimeField()),
                (
                    "error",
                    models.TextField(
                        help_text="The class and the message of the error, in one line."
                    ),
                ),
            ],
            options={"db_table": "bookit_jobfailure"},
        ),
        migrations.RunSQL(
            OF_JOB, "ALTER TABLE bookit_jobfailure DROP CONSTRAINT job_failure_of_job"
        ),
    ]
