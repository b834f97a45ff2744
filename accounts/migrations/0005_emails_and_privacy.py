import django.core.validators
import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import bookit.database.constraints


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0004_updated_at"),
        ("auth", "0012_alter_user_first_name_max_length"),
    ]

    operations = [
        migrations.CreateModel(
            name="EmailedLink",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "purpose",
                    models.CharField(help_text="The name of a kind of email.", max_length=20),
                ),
                (
                    "email",
                    models.EmailField(
                        help_text="The address to which the token was sent.", max_length=254
                    ),
                ),
                ("token_hash", models.BinaryField(max_length=32)),
                ("created_at", models.DateTimeField()),
                ("expires_at", models.DateTimeField()),
            ],
        ),
        migrations.RemoveConstraint(
            model_name="user",
            name="user_sessions_end",
        ),
        migrations.RemoveConstraint(
            model_name="user",
            name="user_updated_at",
        ),
        migrations.AddField(
            model_name="user",
            name="deleted_at",
            field=models.DateTimeField(
                blank=True,
                editable=False,
                help_text="The row stays, without personal data, because bookings refer to it.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="user",
            name="verified_email",
            field=models.EmailField(
                blank=True, db_default="", default="", editable=False, max_length=254
            ),
        ),
        migrations.AddField(
            model_name="user",
            name="language",
            field=models.CharField(
                db_default="en",
                default="en",
                max_length=35,
                validators=[
                    django.core.validators.RegexValidator(
                        "^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*\\Z",
                        "This is not a language tag such as en or pt-BR.",
                    )
                ],
            ),
        ),
        migrations.AddField(
            model_name="user",
            name="new_email",
            field=models.EmailField(
                blank=True,
                db_default="",
                default="",
                editable=False,
                help_text="Replaces the email address once it is verified.",
                max_length=254,
                verbose_name="new email address",
            ),
        ),
        migrations.AddField(
            model_name="user",
            name="phone",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                max_length=32,
                validators=[
                    django.core.validators.RegexValidator(
                        "^\\+?[0-9][0-9 ()./-]{2,30}\\Z",
                        "This is not a phone number such as +351 912 345 678.",
                    )
                ],
            ),
        ),
        migrations.AddConstraint(
            model_name="user",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("deleted_at", None),
                    models.Q(("is_active", False), ("password__startswith", "!")),
                    _connector="OR",
                ),
                name="user_deleted_cannot_sign_in",
            ),
        ),
        migrations.AddConstraint(
            model_name="user",
            constraint=bookit.database.constraints.Trigger(
                body="BEGIN\n    UPDATE accounts_session SET revoked_at = now()\n    WHERE user_id = NEW.id AND revoked_at IS NULL;\n    RETURN NULL;\nEND",
                name="user_sessions_end",
                triggers={
                    "user_sessions_end": "AFTER UPDATE ON {table} FOR EACH ROW\nWHEN (OLD.password IS DISTINCT FROM NEW.password OR OLD.is_active AND NOT NEW.is_active\n    OR OLD.role IS DISTINCT FROM NEW.role)"
                },
            ),
        ),
        migrations.AddConstraint(
            model_name="user",
            constraint=bookit.database.constraints.Trigger(
                body="BEGIN\n    DELETE FROM accounts_emailedlink WHERE user_id = NEW.id;\n    RETURN NULL;\nEND",
                name="user_links_end",
                triggers={
                    "user_links_end": "AFTER UPDATE ON {table} FOR EACH ROW\nWHEN (OLD.password IS DISTINCT FROM NEW.password OR OLD.is_active AND NOT NEW.is_active\n    OR OLD.email <> NEW.email)"
                },
            ),
        ),
        migrations.AddConstraint(
            model_name="user",
            constraint=bookit.database.constraints.Trigger(
                body="BEGIN\n    NEW.new_email := '';\n    RETURN NEW;\nEND",
                name="user_new_email_ends",
                triggers={
                    "user_new_email_ends": "BEFORE UPDATE ON {table} FOR EACH ROW\nWHEN (OLD.password IS DISTINCT FROM NEW.password OR OLD.is_active AND NOT NEW.is_active\n    OR OLD.email <> NEW.email)"
                },
            ),
        ),
        migrations.AddConstraint(
            model_name="user",
            constraint=bookit.database.constraints.Trigger(
                body="DECLARE\n    expected text := current_setting('bookit.expected_version', true);\nBEGIN\n    IF starts_with(expected, OLD.id || ' ') THEN\n        PERFORM set_config('bookit.expected_version', '', true);\n        IF expected <> OLD.id || ' ' || (extract(epoch FROM OLD.updated_at) * 1000000)::bigint THEN\n            RAISE EXCEPTION 'the row has changed'\n            USING ERRCODE = 'check_violation', CONSTRAINT = 'expected_version';\n        END IF;\n    END IF;\n    IF TG_OP = 'DELETE' THEN\n        RETURN OLD;\n    END IF;\n    IF NEW.updated_at <= OLD.updated_at THEN\n        NEW.updated_at := CASE WHEN (OLD.name, OLD.email, OLD.verified_email, OLD.phone, OLD.role, OLD.timezone, OLD.language, OLD.is_active, OLD.password) IS DISTINCT FROM (NEW.name, NEW.email, NEW.verified_email, NEW.phone, NEW.role, NEW.timezone, NEW.language, NEW.is_active, NEW.password)\n            THEN greatest(now(), OLD.updated_at + interval '1 microsecond') ELSE OLD.updated_at END;\n    END IF;\n    RETURN NEW;\nEND",
                name="user_updated_at",
                triggers={
                    "user_deleted_version": "BEFORE DELETE ON {table} FOR EACH ROW WHEN (current_setting('bookit.expected_version', true) <> '')",
                    "user_updated_at": "BEFORE UPDATE ON {table} FOR EACH ROW WHEN (\n    NEW.updated_at <= OLD.updated_at OR current_setting('bookit.expected_version', true) <> ''\n)",
                },
            ),
        ),
        migrations.AddField(
            model_name="emailedlink",
            name="user",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="emailed_links",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="user",
            name="email_verified",
            field=models.GeneratedField(
                db_persist=True,
                expression=models.ExpressionWrapper(
                    models.Q(("verified_email", models.F("email"))), models.BooleanField()
                ),
                output_field=models.BooleanField(),
            ),
        ),
        migrations.AddIndex(
            model_name="emailedlink",
            index=models.Index(fields=["expires_at"], name="emailed_link_by_expiry"),
        ),
        migrations.AddConstraint(
            model_name="emailedlink",
            constraint=models.UniqueConstraint(fields=("token_hash",), name="emailed_link_token"),
        ),
    ]
