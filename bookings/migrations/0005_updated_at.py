import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

from bookit.database.constraints import Trigger


class Migration(migrations.Migration):
    dependencies = [
        ("bookings", "0004_transition"),
        ("catalog", "0004_updated_at"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name="slot",
            name="updated_at",
            field=models.DateTimeField(
                db_default=django.db.models.functions.datetime.Now(), editable=False
            ),
        ),
        migrations.AddConstraint(
            model_name="booking",
            constraint=Trigger(
                body="""
                        DECLARE
                            expected text := current_setting('bookit.expected_version', true);
                        BEGIN
                            IF starts_with(expected, OLD.id || ' ') THEN
                                PERFORM set_config('bookit.expected_version', '', true);
                                IF expected <> OLD.id || ' ' || (extract(epoch FROM OLD.updated_at) * 1000000)::bigint THEN
                                    RAISE EXCEPTION 'the row has changed'
                                    USING ERRCODE = 'check_violation', CONSTRAINT = 'expected_version';
                                END IF;
                            END IF;
                            IF TG_OP = 'DELETE' THEN
                                RETURN OLD;
                            END IF;
                            IF NEW.updated_at <= OLD.updated_at THEN
                                NEW.updated_at := CASE WHEN true
                                    THEN greatest(now(), OLD.updated_at + interval '1 microsecond') ELSE OLD.updated_at END;
                            END IF;
                            RETURN NEW;
                        END
                    """,
                name="booking_updated_at",
                triggers={
                    "booking_deleted_version": "BEFORE DELETE ON {table} FOR EACH ROW WHEN (current_setting('bookit.expected_version', true) <> '')",
                    "booking_updated_at": """
                        BEFORE UPDATE ON {table} FOR EACH ROW WHEN (
                            NEW.updated_at <= OLD.updated_at OR current_setting('bookit.expected_version', true) <> ''
                        )
                    """,
                },
            ),
        ),
        migrations.AddConstraint(
            model_name="slot",
            constraint=Trigger(
                body="""
                        DECLARE
                            expected text := current_setting('bookit.expected_version', true);
                        BEGIN
                            IF starts_with(expected, OLD.id || ' ') THEN
                                PERFORM set_config('bookit.expected_version', '', true);
                                IF expected <> OLD.id || ' ' || (extract(epoch FROM OLD.updated_at) * 1000000)::bigint THEN
                                    RAISE EXCEPTION 'the row has changed'
                                    USING ERRCODE = 'check_violation', CONSTRAINT = 'expected_version';
                                END IF;
                            END IF;
                            IF TG_OP = 'DELETE' THEN
                                RETURN OLD;
                            END IF;
                            IF NEW.updated_at <= OLD.updated_at THEN
                                NEW.updated_at := CASE WHEN true
                                    THEN greatest(now(), OLD.updated_at + interval '1 microsecond') ELSE OLD.updated_at END;
                            END IF;
                            RETURN NEW;
                        END
                    """,
                name="slot_updated_at",
                triggers={
                    "slot_deleted_version": "BEFORE DELETE ON {table} FOR EACH ROW WHEN (current_setting('bookit.expected_version', true) <> '')",
                    "slot_updated_at": """
                        BEFORE UPDATE ON {table} FOR EACH ROW WHEN (
                            NEW.updated_at <= OLD.updated_at OR current_setting('bookit.expected_version', true) <> ''
                        )
                    """,
                },
            ),
        ),
        migrations.AddConstraint(
            model_name="waitlistentry",
            constraint=Trigger(
                body="""
                        DECLARE
                            expected text := current_setting('bookit.expected_version', true);
                        BEGIN
                            IF starts_with(expected, OLD.id || ' ') THEN
                                PERFORM set_config('bookit.expected_version', '', true);
                                IF expected <> OLD.id || ' ' || (extract(epoch FROM OLD.updated_at) * 1000000)::bigint THEN
                                    RAISE EXCEPTION 'the row has changed'
                                    USING ERRCODE = 'check_violation', CONSTRAINT = 'expected_version';
                                END IF;
                            END IF;
                            IF TG_OP = 'DELETE' THEN
                                RETURN OLD;
                            END IF;
                            IF NEW.updated_at <= OLD.updated_at THEN
                                NEW.updated_at := CASE WHEN true
                                    THEN greatest(now(), OLD.updated_at + interval '1 microsecond') ELSE OLD.updated_at END;
                            END IF;
                            RETURN NEW;
                        END
                    """,
                name="waitlist_updated_at",
                triggers={
                    "waitlist_deleted_version": "BEFORE DELETE ON {table} FOR EACH ROW WHEN (current_setting('bookit.expected_version', true) <> '')",
                    "waitlist_updated_at": """
                        BEFORE UPDATE ON {table} FOR EACH ROW WHEN (
                            NEW.updated_at <= OLD.updated_at OR current_setting('bookit.expected_version', true) <> ''
                        )
                    """,
                },
            ),
        ),
        migrations.AddConstraint(
            model_name="webhook",
            constraint=Trigger(
                body="""
                        DECLARE
                            expected text := current_setting('bookit.expected_version', true);
                        BEGIN
                            IF starts_with(expected, OLD.id || ' ') THEN
                                PERFORM set_config('bookit.expected_version', '', true);
                                IF expected <> OLD.id || ' ' || (extract(epoch FROM OLD.updated_at) * 1000000)::bigint THEN
                                    RAISE EXCEPTION 'the row has changed'
                                    USING ERRCODE = 'check_violation', CONSTRAINT = 'expected_version';
                                END IF;
                            END IF;
                            IF TG_OP = 'DELETE' THEN
                                RETURN OLD;
                            END IF;
                            IF NEW.updated_at <= OLD.updated_at THEN
                                NEW.updated_at := CASE WHEN (OLD.owner_id, OLD.url, OLD.events, OLD.is_active, OLD.secret, OLD.failing_since, OLD.disabled_reason) IS DISTINCT FROM (NEW.owner_id, NEW.url, NEW.events, NEW.is_active, NEW.secret, NEW.failing_since, NEW.disabled_reason)
                                    THEN greatest(now(), OLD.updated_at + interval '1 microsecond') ELSE OLD.updated_at END;
                            END IF;
                            RETURN NEW;
                        END
                    """,
                name="webhook_updated_at",
                triggers={
                    "webhook_deleted_version": "BEFORE DELETE ON {table} FOR EACH ROW WHEN (current_setting('bookit.expected_version', true) <> '')",
                    "webhook_updated_at": """
                        BEFORE UPDATE ON {table} FOR EACH ROW WHEN (
                            NEW.updated_at <= OLD.updated_at OR current_setting('bookit.expected_version', true) <> ''
                        )
                    """,
                },
            ),
        ),
    ]
