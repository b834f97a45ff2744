import django.db.models.functions.datetime
from django.db import migrations, models

from bookit.database.constraints import Trigger


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0003_triggers"),
        ("auth", "0012_alter_user_first_name_max_length"),
    ]

    operations = [
        migrations.AddField(
            model_name="user",
            name="updated_at",
            field=models.DateTimeField(
                db_default=django.db.models.functions.datetime.Now(), editable=False
            ),
        ),
        migrations.AddConstraint(
            model_name="user",
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
                                NEW.updated_at := CASE WHEN (OLD.name, OLD.email, OLD.role, OLD.timezone, OLD.is_active, OLD.password) IS DISTINCT FROM (NEW.name, NEW.email, NEW.role, NEW.timezone, NEW.is_active, NEW.password)
                                    THEN greatest(now(), OLD.updated_at + interval '1 microsecond') ELSE OLD.updated_at END;
                            END IF;
                            RETURN NEW;
                        END
                    """,
                name="user_updated_at",
                triggers={
                    "user_deleted_version": "BEFORE DELETE ON {table} FOR EACH ROW WHEN (current_setting('bookit.expected_version', true) <> '')",
                    "user_updated_at": """
                        BEFORE UPDATE ON {table} FOR EACH ROW WHEN (
                            NEW.updated_at <= OLD.updated_at OR current_setting('bookit.expected_version', true) <> ''
                        )
                    """,
                },
            ),
        ),
    ]
