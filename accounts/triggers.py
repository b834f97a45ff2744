"""The database triggers of accounts, which run no matter which program makes a change."""

from bookit.database.constraints import Trigger
from bookit.database.versions import updated_at_trigger

SESSIONS_END = Trigger(
    name="user_sessions_end",
    body="""
BEGIN
    UPDATE accounts_session SET revoked_at = now()
    WHERE user_id = NEW.id AND revoked_at IS NULL;
    RETURN NULL;
END
""",
    triggers={
        "user_sessions_end": """
            AFTER UPDATE ON {table} FOR EACH ROW
            WHEN (OLD.password IS DISTINCT FROM NEW.password OR OLD.is_active AND NOT NEW.is_active
                OR OLD.role IS DISTINCT FROM NEW.role)
        """,
    },
)

# Deletes the emailed links of an account, and cancels a change of its email address. Somebody who
# knew the old password may have requested them, and must not get the account back with them.
LINKS_END = Trigger(
    name="user_links_end",
    body="""
BEGIN
    DELETE FROM accounts_emailedlink WHERE user_id = NEW.id;
    NEW.new_email := '';
    RETURN NEW;
END
""",
    triggers={
        "user_links_end": """
            BEFORE UPDATE ON {table} FOR EACH ROW
            WHEN (OLD.password IS DISTINCT FROM NEW.password OR OLD.is_active AND NOT NEW.is_active
                OR OLD.email <> NEW.email)
        """,
    },
)

# Signing in changes none of these columns, so it leaves `updated_at` as it is.
UPDATED_AT = updated_at_trigger(
    "user",
    columns=[
        *("name", "email", "verified_email", "phone", "role", "timezone", "language"),
        *("is_active", "metadata", "password"),
    ],
)
