from django.db import migrations


class Migration(migrations.Migration):
    """What follows from an event is enqueued with it, whoever writes it."""

    dependencies = [
        ("bookings", "0006_follow_up"),
        ("procrastinate", "0041_post_retry_failed_job"),
    ]

    operations = [
        # One job for each statement, however many events it writes. Here, and not beside each
        # statement, so that none can be forgotten: raw SQL and the admin site included. Whoever
        # stores a past that was told already (an import) sets `bookit.follow_up` to `off`.
        migrations.RunSQL(
            """
            CREATE FUNCTION booking_events_are_followed_up() RETURNS trigger LANGUAGE plpgsql AS $$
            DECLARE
                ids jsonb;
            BEGIN
                SELECT jsonb_agg(id ORDER BY id) INTO ids FROM written;
                IF ids IS NOT NULL AND current_setting('bookit.follow_up', true) IS DISTINCT FROM 'off'
                THEN
                    PERFORM procrastinate_defer_jobs_v1(ARRAY[ROW(
                        'default', 'bookings.follow_up', 0, NULL, NULL,
                        jsonb_build_object('event_ids', ids), NULL
                    )::procrastinate_job_to_defer_v1]);
                END IF;
                RETURN NULL;
            END $$;
            CREATE TRIGGER booking_events_are_followed_up AFTER INSERT ON bookings_bookingevent
            REFERENCING NEW TABLE AS written
            FOR EACH STATEMENT EXECUTE FUNCTION booking_events_are_followed_up();
            """,
            """
            DROP TRIGGER booking_events_are_followed_up ON bookings_bookingevent;
            DROP FUNCTION booking_events_are_followed_up();
            """,
        ),
        # NOTIFY makes all that commit take turns, each through its write to disk: of 16 clients
        # that book at once it left a sixth of the rate. Workers look every second instead.
        migrations.RunSQL(
            "ALTER TABLE procrastinate_jobs"
            " DISABLE TRIGGER procrastinate_jobs_notify_queue_job_inserted_v1",
            "ALTER TABLE procrastinate_jobs"
            " ENABLE TRIGGER procrastinate_jobs_notify_queue_job_inserted_v1",
        ),
    ]
