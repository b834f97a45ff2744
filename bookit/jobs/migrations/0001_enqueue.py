from django.db import migrations

# Writes a job in the transaction of the change that causes it. No other SQL names a function of
# procrastinate, because procrastinate replaces its functions in minor releases.
ENQUEUE = """
CREATE FUNCTION enqueue_job(queue text, task text, args jsonb) RETURNS void LANGUAGE sql AS $$
    SELECT procrastinate_defer_jobs_v1(
        ARRAY[ROW(queue, task, 0, NULL, NULL, args, NULL)::procrastinate_job_to_defer_v1]
    )
$$
"""
# Writes a job in the transaction that changes rows of a calendar. If the database is distributed,
# `distribute` replaces this function with one that writes to the server of these rows.
ENQUEUE_BESIDE = """
CREATE FUNCTION enqueue_beside(calendar uuid, queue text, task text, args jsonb)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM enqueue_job(queue, task, args);
END
$$
"""
# NOTIFY locks the whole database until the commit is on disk. With 16 clients that book at once,
# NOTIFY reduced the bookings per second to a sixth. Instead, workers poll for jobs every second.
NOTIFY = "TRIGGER procrastinate_jobs_notify_queue_job_inserted_v1"


class Migration(migrations.Migration):
    initial = True

    dependencies = [("procrastinate", "0041_post_retry_failed_job")]

    operations = [
        migrations.RunSQL(ENQUEUE, "DROP FUNCTION enqueue_job"),
        migrations.RunSQL(ENQUEUE_BESIDE, "DROP FUNCTION enqueue_beside"),
        migrations.RunSQL(
            f"ALTER TABLE procrastinate_jobs DISABLE {NOTIFY}",
            f"ALTER TABLE procrastinate_jobs ENABLE {NOTIFY}",
        ),
    ]
