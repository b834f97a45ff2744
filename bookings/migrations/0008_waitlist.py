import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """Who waits for a seat follows what becomes of their booking, whoever changes it."""

    dependencies = [("bookings", "0007_jobs")]

    operations = [
        migrations.AlterField(
            model_name="waitlistentry",
            name="booking",
            field=models.OneToOneField(
                blank=True,
                help_text="The hold that was offered, or the booking they made themselves.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="waitlist_entry",
                to="bookings.booking",
            ),
        ),
        migrations.AddIndex(
            model_name="waitlistentry",
            index=models.Index(
                condition=models.Q(("status", "waiting")),
                fields=["slot", "created_at", "id"],
                name="waitlist_waiting",
            ),
        ),
        # Here, and not beside each statement that changes bookings, so that none can be forgotten.
        # An entry keeps the booking it came to: one that is moved here may be another entry's.
        migrations.RunSQL(
            """
            CREATE FUNCTION waitlist_follows() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF TG_OP = 'DELETE' THEN
                    UPDATE bookings_waitlistentry
                    SET status = 'passed', booking_id = NULL, updated_at = now()
                    WHERE slot_id = OLD.slot_id AND user_id = OLD.user_id
                      AND status = 'offered' AND COALESCE(booking_id, OLD.id) = OLD.id;
                ELSIF NEW.active THEN
                    UPDATE bookings_waitlistentry
                    SET status = CASE NEW.status WHEN 'held' THEN 'offered' ELSE 'booked' END,
                        booking_id = CASE TG_OP WHEN 'INSERT' THEN NEW.id ELSE booking_id END,
                        updated_at = NEW.updated_at
                    WHERE slot_id = NEW.slot_id AND user_id = NEW.user_id
                      AND (status = 'waiting' OR status = 'offered' AND booking_id = NEW.id);
                ELSE
                    UPDATE bookings_waitlistentry
                    SET status = 'passed', updated_at = NEW.updated_at
                    WHERE slot_id = NEW.slot_id AND user_id = NEW.user_id
                      AND status = 'offered' AND booking_id = NEW.id;
                END IF;
                RETURN NULL;
            END $$;
            CREATE TRIGGER waitlist_follows AFTER INSERT ON bookings_booking
            FOR EACH ROW WHEN (NEW.slot_id IS NOT NULL) EXECUTE FUNCTION waitlist_follows();
            CREATE TRIGGER waitlist_follows_change AFTER UPDATE ON bookings_booking
            FOR EACH ROW WHEN (
                NEW.slot_id IS NOT NULL
                AND (OLD.status, OLD.slot_id) IS DISTINCT FROM (NEW.status, NEW.slot_id)
            ) EXECUTE FUNCTION waitlist_follows();
            CREATE TRIGGER waitlist_follows_end AFTER DELETE ON bookings_booking
            FOR EACH ROW WHEN (OLD.slot_id IS NOT NULL) EXECUTE FUNCTION waitlist_follows();
            """,
            """
            DROP TRIGGER waitlist_follows_end ON bookings_booking;
            DROP TRIGGER waitlist_follows_change ON bookings_booking;
            DROP TRIGGER waitlist_follows ON bookings_booking;
            DROP FUNCTION waitlist_follows();
            """,
        ),
    ]
