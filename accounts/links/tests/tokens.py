"""Creates tokens like the tokens in emails."""

from django.utils.timezone import now

from accounts.links import services as links


def emailed_token(kind, user):
    """Return a new token for an account, without sending an email."""
    return links._new_token(kind, user, user.email, at=now())
