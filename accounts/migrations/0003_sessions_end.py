from django.db import migrations


class Migration(migrations.Migration):
    """End the sessions of an account with its password, whoever changes it and by whatever path."""

    dependencies = [("accounts", "0002_token_expiry")]

    operations = [
        migrations.RunSQL(
            """
            CREATE FUNCTION user_sessions_end() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                UPDATE accounts_session SET revoked_at = now()
                WHERE user_id = NEW.id AND revoked_at IS NULL;
                RETURN NULL;
            END $$;
            CREATE TRIGGER user_sessions_end AFTER UPDATE ON accounts_user FOR EACH ROW WHEN (
                OLD.password IS DISTINCT FROM NEW.password OR OLD.is_active AND NOT NEW.is_active
            ) EXECUTE FUNCTION user_sessions_end();
            """,
            """
            DROP TRIGGER user_sessions_end ON accounts_user;
            DROP FUNCTION user_sessions_end();
            """,
        ),
    ]
