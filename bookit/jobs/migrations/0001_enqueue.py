from django.db import migrations

# A job that is written with the change it follows from. The only place in SQL that names a function
# of procrastinate, which replaces them in minor releases.
ENQUEUE = """
CREATE FUNCTION enqueue_job(
    queue text,
    task text,
    args jsonb,
    queueing_lock text DEFAULT NULL,
    scheduled_at timestamptz DEFAULT NULL
) RETURNS void LANGUAGE sql AS $$
    SELECT procrastinate_defer_jobs_v1(ARRAY[
        ROW(queue, task, 0, NULL, queueing_lock, args, scheduled_at)::procrastinate_job_to_defer_v1
    ])
$$
"""
# The arguments and their types, as PostgreSQL identifies the function.
SIGNATURE = "enqueue_job(text, text, jsonb, text, timestamptz)"
# NOTIFY takes a lock on the whole database until the commit is on disk: with 16 clients that book at
# once, a sixth of the bookings per second was left. Workers look for jobs every second instead.
NOTIFY = "TRIGGER procrastinate_jobs_notify_queue_job_inserted_v1"


class Migration(migrations.Migration):
    initial = True

    dependencies = [("procrastinate", "0041_post_retry_failed_job")]

    operations = [
        migrations.RunSQL(ENQUEUE, f"DROP FUNCTION {SIGNATURE}"),
        migrations.RunSQL(
            f"ALTER TABLE procrastinate_jobs DISABLE {NOTIFY}",
            f"ALTER TABLE procrastinate_jobs ENABLE {NOTIFY}",
        ),
    ]
