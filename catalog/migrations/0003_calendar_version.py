from django.db import migrations, models


class Migration(migrations.Migration):
    """A calendar's version rises with the terms on which its services are booked."""

    dependencies = [("catalog", "0002_time_off")]

    operations = [
        migrations.AddField(
            model_name="calendar",
            name="version",
            field=models.PositiveBigIntegerField(db_default=0, editable=False),
        ),
        migrations.AddConstraint(
            model_name="calendar",
            constraint=models.UniqueConstraint(fields=("id", "version"), name="calendar_version"),
        ),
        # Triggers, so that no path is forgotten: the admin site and raw SQL included. One statement
        # that changes several calendars locks them in the order of their ids.
        migrations.RunSQL(
            """
            CREATE FUNCTION calendar_version_rises() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                -- Saving a calendar as it was read must not put the version back.
                NEW.version := greatest(
                    NEW.version, OLD.version + (NEW.timezone <> OLD.timezone)::int
                );
                RETURN NEW;
            END $$;
            CREATE TRIGGER calendar_version_rises BEFORE UPDATE ON catalog_calendar
            FOR EACH ROW WHEN (NEW.version < OLD.version OR NEW.timezone <> OLD.timezone)
            EXECUTE FUNCTION calendar_version_rises();

            CREATE FUNCTION calendar_opening_changed() RETURNS trigger LANGUAGE plpgsql AS $$
            DECLARE
                ids uuid[];
            BEGIN
                IF TG_OP <> 'INSERT' THEN
                    ids := ARRAY(SELECT calendar_id FROM removed);
                END IF;
                IF TG_OP <> 'DELETE' THEN
                    ids := ids || ARRAY(SELECT calendar_id FROM added);
                END IF;
                UPDATE catalog_calendar SET version = version + 1 WHERE id IN (
                    SELECT id FROM catalog_calendar WHERE id = ANY(ids) ORDER BY id FOR UPDATE
                );
                RETURN NULL;
            END $$;
            CREATE TRIGGER opening_hours_added AFTER INSERT ON catalog_openinghours
            REFERENCING NEW TABLE AS added
            FOR EACH STATEMENT EXECUTE FUNCTION calendar_opening_changed();
            CREATE TRIGGER opening_hours_changed AFTER UPDATE ON catalog_openinghours
            REFERENCING OLD TABLE AS removed NEW TABLE AS added
            FOR EACH STATEMENT EXECUTE FUNCTION calendar_opening_changed();
            CREATE TRIGGER opening_hours_removed AFTER DELETE ON catalog_openinghours
            REFERENCING OLD TABLE AS removed
            FOR EACH STATEMENT EXECUTE FUNCTION calendar_opening_changed();
            CREATE TRIGGER time_off_added AFTER INSERT ON catalog_timeoff
            REFERENCING NEW TABLE AS added
            FOR EACH STATEMENT EXECUTE FUNCTION calendar_opening_changed();
            CREATE TRIGGER time_off_changed AFTER UPDATE ON catalog_timeoff
            REFERENCING OLD TABLE AS removed NEW TABLE AS added
            FOR EACH STATEMENT EXECUTE FUNCTION calendar_opening_changed();
            CREATE TRIGGER time_off_removed AFTER DELETE ON catalog_timeoff
            REFERENCING OLD TABLE AS removed
            FOR EACH STATEMENT EXECUTE FUNCTION calendar_opening_changed();

            CREATE FUNCTION service_terms_changed() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                UPDATE catalog_calendar SET version = version + 1 WHERE id = NEW.calendar_id;
                RETURN NULL;
            END $$;
            -- Not of ratings and texts. Neither of the calendar: a booking's foreign key over
            -- service and calendar refuses bookings of a service that has moved.
            CREATE TRIGGER service_terms_changed AFTER UPDATE ON catalog_service
            FOR EACH ROW WHEN (
                (OLD.is_active, OLD.mode, OLD.capacity, OLD.duration_minutes,
                    OLD.buffer_before_minutes, OLD.buffer_after_minutes, OLD.min_notice_minutes,
                    OLD.max_advance_days, OLD.requires_confirmation, OLD.price, OLD.currency)
                IS DISTINCT FROM
                (NEW.is_active, NEW.mode, NEW.capacity, NEW.duration_minutes,
                    NEW.buffer_before_minutes, NEW.buffer_after_minutes, NEW.min_notice_minutes,
                    NEW.max_advance_days, NEW.requires_confirmation, NEW.price, NEW.currency)
            ) EXECUTE FUNCTION service_terms_changed();
            """,
            """
            DROP TRIGGER service_terms_changed ON catalog_service;
            DROP FUNCTION service_terms_changed();
            DROP FUNCTION calendar_opening_changed() CASCADE;
            DROP TRIGGER calendar_version_rises ON catalog_calendar;
            DROP FUNCTION calendar_version_rises();
            """,
        ),
    ]
