from django.conf import settings
from django.db import migrations

from bookit.database.constraints import Trigger


class Migration(migrations.Migration):
    dependencies = [
        ("bookings", "0005_updated_at"),
        ("catalog", "0004_updated_at"),
        ("reviews", "0002_constraints"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddConstraint(
            model_name="review",
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
                name="review_updated_at",
                triggers={
                    "review_deleted_version": "BEFORE DELETE ON {table} FOR EACH ROW WHEN (current_setting('bookit.expected_version', true) <> '')",
                    "review_updated_at": """
                        BEFORE UPDATE ON {table} FOR EACH ROW WHEN (
                            NEW.updated_at <= OLD.updated_at OR current_setting('bookit.expected_version', true) <> ''
                        )
                    """,
                },
            ),
        ),
    ]
