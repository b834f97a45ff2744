from django.db import migrations

import bookit.database.constraints


class Migration(migrations.Migration):
    dependencies = [("bookings", "0020_tally_positions")]

    operations = [
        migrations.RemoveConstraint(
            model_name="bookingevent",
            name="booking_event_joins_history",
        ),
        migrations.AddConstraint(
            model_name="bookingevent",
            constraint=bookit.database.constraints.Trigger(
                body="DECLARE\n    last record;\nBEGIN\n    SELECT event.id, event.at INTO last\n    FROM bookings_booking AS booking LEFT JOIN LATERAL (\n        SELECT id, at FROM bookings_bookingevent\n        WHERE calendar_id = NEW.calendar_id\n          AND booking_id BETWEEN NEW.booking_id AND NEW.booking_id\n        ORDER BY booking_id DESC, id DESC LIMIT 1\n    ) AS event ON true\n    WHERE booking.calendar_id = NEW.calendar_id AND booking.id = NEW.booking_id;\n    IF NOT FOUND THEN\n        RAISE EXCEPTION 'the calendar does not have this booking'\n        USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'event_on_calendar';\n    END IF;\n    IF NEW.id <= last.id THEN\n        NEW.id := uuid7(uuid7_ticks(last.id) + 1);\n    END IF;\n    NEW.at := greatest(NEW.at, last.at + interval '1 microsecond');\n    RETURN NEW;\nEND",
                name="booking_event_joins_history",
                options="SET enable_seqscan = off SET enable_sort = off",
                triggers={"booking_event_joins_history": "BEFORE INSERT ON {table} FOR EACH ROW"},
            ),
        ),
    ]
