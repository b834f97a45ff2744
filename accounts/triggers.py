"""The database triggers of accounts, which run no matter which program makes a change."""

from bookit.database.constraints import Trigger
from bookit.database.versions import updated_at_trigger

_ACCESS_CHANGES = (
    "OLD.password IS DISTINCT FROM NEW.password OR OLD.is_active AND NOT NEW.is_active"
)

# The lock is for logins that cannot lock the row of the user (`accounts.sessions.services.log_in`).
SESSIONS_END = Trigger(
    name="user_sessions_end",
    body="""
BEGIN
    PERFORM pg_advisory_xact_lock(uuid_hash_extended(NEW.id, 2));
    UPDATE accounts_session SET revoked_at = now()
    WHERE user_id = NEW.id AND revoked_at IS NULL;
    RETURN NULL;
END
""",
    triggers={
        "user_sessions_end": f"""
            AFTER UPDATE ON {{table}} FOR EACH ROW
            WHEN ({_ACCESS_CHANGES}
                OR OLD.role IS DISTINCT FROM NEW.role)
        """,
    },
)

_CREDENTIALS_CHANGE = f"""
            WHEN ({_ACCESS_CHANGES}
                OR OLD.email <> NEW.email)
"""

# Deletes the emailed links of an account. Somebody who knew the old password or reads the emails to
# the old address must not get the account back with them.
LINKS_END = Trigger(
    name="user_links_end",
    body="""
BEGIN
    DELETE FROM accounts_emailedlink WHERE user_id = NEW.id;
    RETURN NULL;
END
""",
    triggers={
        "user_links_end": f"""
            AFTER UPDATE ON {{table}} FOR EACH ROW{_CREDENTIALS_CHANGE}
        """,
    },
)

# Clears the new email address of an account: it has just taken effect, or it is cancelled, because
# somebody who knew the old password may have requested it.
NEW_EMAIL_ENDS = Trigger(
    name="user_new_email_ends",
    body="""
BEGIN
    NEW.new_email := '';
    RETURN NEW;
END
""",
    triggers={
        "user_new_email_ends": f"""
            BEFORE UPDATE ON {{table}} FOR EACH ROW{_CREDENTIALS_CHANGE}
        """,
    },
)

# Signing in normally changes none of these columns, so it leaves `updated_at` as it is. If the
# parameters of the hasher have changed, signing in stores a new hash, and `updated_at` increases.
UPDATED_AT = updated_at_trigger(
    "user",
    columns=[
        *("name", "email", "verified_email", "phone", "role", "timezone", "language"),
        *("is_active", "metadata", "password"),
    ],
)
