import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

from bookit.database.constraints import Trigger


class Migration(migrations.Migration):
    dependencies = [
        ("catalog", "0003_triggers"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name="openinghours",
            name="opening_hours_change_version",
        ),
        migrations.AddField(
            model_name="calendar",
            name="updated_at",
            field=models.DateTimeField(
                db_default=django.db.models.functions.datetime.Now(), editable=False
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="updated_at",
            field=models.DateTimeField(
                db_default=django.db.models.functions.datetime.Now(), editable=False
            ),
        ),
        migrations.AddConstraint(
            model_name="calendar",
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
                                NEW.updated_at := CASE WHEN (OLD.name, OLD.timezone, OLD.provider_id) IS DISTINCT FROM (NEW.name, NEW.timezone, NEW.provider_id)
                                    THEN greatest(now(), OLD.updated_at + interval '1 microsecond') ELSE OLD.updated_at END;
                            END IF;
                            RETURN NEW;
                        END
                    """,
                name="calendar_updated_at",
                triggers={
                    "calendar_deleted_version": "BEFORE DELETE ON {table} FOR EACH ROW WHEN (current_setting('bookit.expected_version', true) <> '')",
                    "calendar_updated_at": """
                        BEFORE UPDATE ON {table} FOR EACH ROW WHEN (
                            NEW.updated_at <= OLD.updated_at OR current_setting('bookit.expected_version', true) <> ''
                        )
                    """,
                },
            ),
        ),
        migrations.AddConstraint(
            model_name="openinghours",
            constraint=Trigger(
                body="""
                        DECLARE
                            ids uuid[];
                            last timestamptz;
                        BEGIN
                            IF TG_OP <> 'INSERT' THEN
                                ids := ARRAY(SELECT calendar_id FROM removed);
                            END IF;
                            IF TG_OP <> 'DELETE' THEN
                                ids := ids || ARRAY(SELECT calendar_id FROM added);
                            END IF;
                            PERFORM calendar_take_turn(id)
                            FROM (SELECT DISTINCT unnest(ids) AS id ORDER BY id) AS changed;
                            SELECT max(updated_at) INTO last FROM (
                                SELECT updated_at FROM catalog_calendar WHERE id = ANY(ids) ORDER BY id FOR UPDATE
                            ) AS locked;
                            UPDATE catalog_calendar SET version = version + 1, updated_at = greatest(now(), last + interval '1 microsecond') WHERE id = ANY(ids);
                            RETURN NULL;
                        END
                    """,
                name="opening_hours_change_version",
                triggers={
                    "opening_hours_added": "AFTER INSERT ON {table} REFERENCING NEW TABLE AS added FOR EACH STATEMENT",
                    "opening_hours_changed": """
                        AFTER UPDATE ON {table} REFERENCING OLD TABLE AS removed NEW TABLE AS added
                        FOR EACH STATEMENT
                    """,
                    "opening_hours_removed": "AFTER DELETE ON {table} REFERENCING OLD TABLE AS removed FOR EACH STATEMENT",
                },
            ),
        ),
        migrations.AddConstraint(
            model_name="service",
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
                name="service_updated_at",
                triggers={
                    "service_deleted_version": "BEFORE DELETE ON {table} FOR EACH ROW WHEN (current_setting('bookit.expected_version', true) <> '')",
                    "service_updated_at": """
                        BEFORE UPDATE ON {table} FOR EACH ROW WHEN (
                            NEW.updated_at <= OLD.updated_at OR current_setting('bookit.expected_version', true) <> ''
                        )
                    """,
                },
            ),
        ),
    ]
