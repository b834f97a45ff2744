from django.db import migrations, models

# Finds the failed jobs among millions of waiting jobs. Only failed jobs are in this index, so it
# costs nothing when a job is enqueued or succeeds.
FAILED = "CREATE INDEX job_failed_by_task ON procrastinate_jobs (task_name) WHERE status = 'failed'"


class Migration(migrations.Migration):
    dependencies = [("jobs", "0001_enqueue")]

    operations = [
        migrations.RunSQL(FAILED, "DROP INDEX job_failed_by_task"),
        migrations.CreateModel(
            name="JobTally",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("task", models.CharField(max_length=128)),
                ("outcome", models.CharField(max_length=10)),
                ("bucket", models.FloatField()),
                ("jobs", models.BigIntegerField()),
                ("seconds", models.FloatField()),
            ],
            options={
                "db_table": "bookit_jobtally",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("task", "outcome", "bucket"), name="job_tally_one_per_bucket"
                    )
                ],
            },
        ),
    ]
