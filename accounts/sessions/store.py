"""Stores the sessions of the admin site in Django's table, and ignores those that have ended."""

from typing import Any

from django.contrib.postgres.functions import TransactionNow
from django.contrib.sessions.backends import db
from django.utils import timezone

from accounts.sessions.models import Session
from accounts.sessions.services import SESSION_KEY


class SessionStore(db.SessionStore):
    """Django's own store, but a login works only as long as its `Session` has not ended.

    The trigger `user_sessions_end` cannot delete Django's rows, because only Django can read whose
    they are. Without this check, an account that is activated again would be signed in again.
    """

    def load(self) -> dict[str, Any]:
        """Return the content of the session; nothing if the login has ended."""
        found: dict[str, Any] = super().load()
        session_id = found.get(SESSION_KEY)
        if session_id is None or self._logins(session_id).filter(revoked_at=None).exists():
            return found
        self._session_key = None
        return {}

    def cycle_key(self) -> None:
        """Change the key of the session.

        Django does this when users sign in, and when they change their own password. After that
        change, they stay signed in, although the trigger has ended all their sessions in the same
        transaction. A session that ended in another transaction stays ended.
        """
        super().cycle_key()
        if SESSION_KEY in self:
            logins = self._logins(self[SESSION_KEY])
            logins.filter(revoked_at=TransactionNow()).update(revoked_at=None)

    def _logins(self, session_id: str) -> Any:
        return Session.objects.filter(pk=session_id, expires_at__gt=timezone.now())
