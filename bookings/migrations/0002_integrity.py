from django.db import migrations


class Migration(migrations.Migration):
    """What Django's models cannot say."""

    dependencies = [("bookings", "0001_initial")]

    operations = [
        # A booking's calendar is its service's: without this, a wrong calendar on a row would get
        # round the constraint that a calendar hosts one service at a time.
        migrations.RunSQL(
            """
            ALTER TABLE bookings_booking ADD CONSTRAINT booking_service_on_calendar
            FOREIGN KEY (service_id, calendar_id) REFERENCES catalog_service (id, calendar_id)
            """,
            "ALTER TABLE bookings_booking DROP CONSTRAINT booking_service_on_calendar",
        ),
        # History is written once.
        migrations.RunSQL(
            """
            CREATE FUNCTION booking_event_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                RAISE EXCEPTION 'booking events are append-only' USING ERRCODE = 'restrict_violation';
            END $$;
            CREATE TRIGGER booking_event_append_only BEFORE UPDATE OR DELETE ON bookings_bookingevent
            FOR EACH ROW EXECUTE FUNCTION booking_event_is_final();
            """,
            """
            DROP TRIGGER booking_event_append_only ON bookings_bookingevent;
            DROP FUNCTION booking_event_is_final();
            """,
        ),
    ]
