from django.db import migrations


class Migration(migrations.Migration):
    """What Django's models cannot say of slots, and of the time that they share with bookings."""

    dependencies = [("bookings", "0003_slots")]

    operations = [
        # A slot's calendar is its service's, and a booking in a slot is where and when the slot is.
        migrations.RunSQL(
            """
            ALTER TABLE bookings_slot ADD CONSTRAINT slot_service_on_calendar
            FOREIGN KEY (service_id, calendar_id) REFERENCES catalog_service (id, calendar_id);
            ALTER TABLE bookings_booking ADD CONSTRAINT booking_in_slot
            FOREIGN KEY (slot_id, service_id, calendar_id, start_time, end_time, blocked)
            REFERENCES bookings_slot (id, service_id, calendar_id, start_time, end_time, blocked);
            """,
            """
            ALTER TABLE bookings_booking DROP CONSTRAINT booking_in_slot;
            ALTER TABLE bookings_slot DROP CONSTRAINT slot_service_on_calendar;
            """,
        ),
        # What slots and bookings take of a calendar stands in one table, where one exclusion
        # constraint sees it all. ON CONFLICT DO NOTHING, as everywhere: plain INSERTs into such a
        # constraint would wait for each other.
        migrations.RunSQL(
            """
            CREATE FUNCTION booking_occupies() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF TG_OP <> 'INSERT' THEN
                    DELETE FROM bookings_occupancy WHERE id = OLD.id;
                END IF;
                IF TG_OP <> 'DELETE' AND NEW.active AND NEW.slot_id IS NULL THEN
                    INSERT INTO bookings_occupancy
                        (id, calendar_id, occupant, seat, blocked, expires_at)
                    VALUES (NEW.id, NEW.calendar_id, NEW.service_id, NEW.seat, NEW.blocked,
                        NEW.hold_expires_at)
                    ON CONFLICT DO NOTHING;
                    IF NOT FOUND THEN
                        RAISE EXCEPTION 'the calendar has a slot at that time'
                        USING ERRCODE = 'exclusion_violation', CONSTRAINT = 'booking_beside_slots';
                    END IF;
                END IF;
                RETURN NULL;
            END $$;
            CREATE TRIGGER booking_occupies AFTER INSERT OR DELETE ON bookings_booking
            FOR EACH ROW EXECUTE FUNCTION booking_occupies();
            CREATE TRIGGER booking_occupies_anew AFTER UPDATE ON bookings_booking
            FOR EACH ROW WHEN (
                (OLD.id, OLD.calendar_id, OLD.service_id, OLD.slot_id, OLD.seat, OLD.blocked,
                    OLD.active, OLD.hold_expires_at)
                IS DISTINCT FROM
                (NEW.id, NEW.calendar_id, NEW.service_id, NEW.slot_id, NEW.seat, NEW.blocked,
                    NEW.active, NEW.hold_expires_at)
            ) EXECUTE FUNCTION booking_occupies();

            CREATE FUNCTION slot_occupies() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF TG_OP <> 'INSERT' THEN
                    DELETE FROM bookings_occupancy WHERE id = OLD.id;
                END IF;
                IF TG_OP <> 'DELETE' AND NEW.status = 'scheduled' THEN
                    INSERT INTO bookings_occupancy (id, calendar_id, occupant, blocked)
                    VALUES (NEW.id, NEW.calendar_id, NEW.id, NEW.blocked)
                    ON CONFLICT DO NOTHING;
                    IF NOT FOUND THEN
                        RAISE EXCEPTION 'the calendar has a slot or a booking at that time'
                        USING ERRCODE = 'exclusion_violation', CONSTRAINT = 'slot_beside_bookings';
                    END IF;
                END IF;
                RETURN NULL;
            END $$;
            CREATE TRIGGER slot_occupies AFTER INSERT OR DELETE ON bookings_slot
            FOR EACH ROW EXECUTE FUNCTION slot_occupies();
            CREATE TRIGGER slot_occupies_anew AFTER UPDATE ON bookings_slot
            FOR EACH ROW WHEN (
                (OLD.id, OLD.calendar_id, OLD.blocked, OLD.status)
                IS DISTINCT FROM (NEW.id, NEW.calendar_id, NEW.blocked, NEW.status)
            ) EXECUTE FUNCTION slot_occupies();

            INSERT INTO bookings_occupancy (id, calendar_id, occupant, seat, blocked, expires_at)
            SELECT id, calendar_id, service_id, seat, blocked, hold_expires_at
            FROM bookings_booking WHERE active AND slot_id IS NULL;

            CREATE FUNCTION occupancy_is_derived() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                RAISE EXCEPTION 'occupancy follows from slots and bookings: change those'
                USING ERRCODE = 'restrict_violation';
            END $$;
            CREATE TRIGGER occupancy_is_derived
            BEFORE INSERT OR UPDATE OR DELETE ON bookings_occupancy
            FOR EACH ROW WHEN (pg_trigger_depth() = 0)
            EXECUTE FUNCTION occupancy_is_derived();
            """,
            """
            DROP TRIGGER occupancy_is_derived ON bookings_occupancy;
            DROP FUNCTION occupancy_is_derived();
            DROP TRIGGER slot_occupies_anew ON bookings_slot;
            DROP TRIGGER slot_occupies ON bookings_slot;
            DROP FUNCTION slot_occupies();
            DROP TRIGGER booking_occupies_anew ON bookings_booking;
            DROP TRIGGER booking_occupies ON bookings_booking;
            DROP FUNCTION booking_occupies();
            """,
        ),
    ]
