from django.db import migrations

from bookit.database.constraints import Trigger


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0002_constraints"),
        ("token_blacklist", "0013_alter_blacklistedtoken_options_and_more"),
    ]

    operations = [
        migrations.AddConstraint(
            model_name="user",
            constraint=Trigger(
                body="""
                    BEGIN
                        UPDATE accounts_session SET revoked_at = now()
                        WHERE user_id = NEW.id AND revoked_at IS NULL;
                        RETURN NULL;
                    END
                """,
                name="user_sessions_end",
                triggers={
                    "user_sessions_end": """
                        AFTER UPDATE ON {table} FOR EACH ROW
                        WHEN (OLD.password IS DISTINCT FROM NEW.password OR OLD.is_active AND NOT NEW.is_active)
                    """
                },
            ),
        ),
        # With this index, the daily pruning finds expired tokens. simplejwt has no index on
        # `expires_at`.
        migrations.RunSQL(
            "CREATE INDEX outstanding_token_by_expiry ON token_blacklist_outstandingtoken (expires_at)",
            "DROP INDEX outstanding_token_by_expiry",
        ),
    ]
