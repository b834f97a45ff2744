"""Sends emails about accounts, and finds the account to which a token belongs.

A token is stored as a row instead of being signed, so that it can be used only once, can be revoked
when the account changes, and stays valid if SECRET_KEY changes. The table contains only hashes of
tokens. The worker creates the token when it sends the email, so no job contains a token either.

A request for a password reset only enqueues a job with the email address. The worker looks up the
account, so the duration of the request does not reveal whether there is an account.
"""

import secrets
from collections.abc import Collection
from datetime import datetime
from hashlib import sha256
from uuid import UUID

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.utils.translation import pgettext

from accounts.links.kinds import (
    CHANGE_REQUESTED,
    EMAIL_CHANGED,
    INVITATION,
    KEY_CREATED,
    PASSWORD_RESET,
    VERIFICATION,
    Kind,
)
from accounts.links.models import EmailedLink
from accounts.models import User
from accounts.sessions.tokens import TokenInvalid
from bookit.database.batches import delete_in_batches
from bookit.languages import speaking
from bookit.mails.layout import Letter, Link
from bookit.mails.limits import Limit, hashed
from bookit.mails.sending import defer, send_within_limits

TASK = "accounts.send_mail"


def enqueue(*, kind: Kind, email: str, user: User | None = None) -> None:
    """Enqueue the job that sends an email. If the same job is already waiting, it runs now.

    Args:
        user: the owner of the account; None if the email address may have no account.
    """
    user_id = str(user.pk) if user else None
    args = {"kind": kind.name, "email": email, "user_id": user_id}
    defer(TASK, {f"{TASK}/{kind.name}/{user_id}/{email}": (args, None)})


def send(*, kind: Kind, email: str, user_id: UUID | None, at: datetime) -> None:
    """Send an email about an account, unless it no longer applies or a limit has been reached.

    Raises:
        OSError: the mail server did not accept the email. `smtplib.SMTPException` is an `OSError`.
    """
    user = _recipient(kind, email, user_id)
    if user is None:
        return
    token = _new_token(kind, user, email, at=at) if kind.lifetime else ""
    limit = Limit("address", f"account/{kind.name}/{hashed(email)}", settings.MAILS_PER_ACCOUNT)
    with speaking(user.language):
        message = _compose(kind, user, email, token)
    send_within_limits(message, limits=[limit], at=at, user_id=str(user.pk))


def find(*, token: str, kinds: Collection[Kind], at: datetime) -> EmailedLink:
    """Return the row of a token.

    Args:
        kinds: the kinds of emails from which the token may come.

    Raises:
        TokenInvalid: the token is wrong, used, expired or revoked.
    """
    link = (
        EmailedLink.objects.select_related("user")
        .filter(
            token_hash=_hash(token),
            purpose__in=[kind.name for kind in kinds],
            expires_at__gt=at,
            user__is_active=True,
        )
        .first()
    )
    if link is None:
        raise TokenInvalid
    return link


def use(*, link: EmailedLink) -> User:
    """Use up a link in the caller's transaction. Lock its user's row, and return the user.

    Raises:
        TokenInvalid: the token has been used or revoked since `find` returned the link.
    """
    users = User.objects.select_for_update(no_key=True).filter(pk=link.user_id, is_active=True)
    user = users.first()
    # The number of deleted rows decides which of several concurrent requests uses the link.
    if user is None or not EmailedLink.objects.filter(pk=link.pk).delete()[0]:
        raise TokenInvalid
    return user


def prune_links(*, at: datetime) -> int:
    """Delete expired links, and return their number."""
    return delete_in_batches(EmailedLink.objects.filter(expires_at__lt=at), by="expires_at")


def _recipient(kind: Kind, email: str, user_id: UUID | None) -> User | None:
    """Return the user who gets an email, or None if no active account needs the email."""
    users = User.objects.filter(is_active=True)
    if kind is PASSWORD_RESET:
        return users.filter(email=email).first()
    user = users.filter(pk=user_id).first() if user_id else None
    if user is None:
        return None
    applies = {
        INVITATION: user.email == email and not user.has_usable_password(),
        VERIFICATION: email in _unverified(user),
        CHANGE_REQUESTED: user.email == email and bool(user.new_email),
        EMAIL_CHANGED: user.email != email,
        KEY_CREATED: user.email == email,
    }
    return user if applies[kind] else None


def _unverified(user: User) -> Collection[str]:
    """Return the email addresses of an account that are not verified yet."""
    return {user.new_email, "" if user.email_verified else user.email} - {""}


def _new_token(kind: Kind, user: User, email: str, *, at: datetime) -> str:
    token = secrets.token_urlsafe(32)
    EmailedLink.objects.create(
        user=user,
        purpose=kind.name,
        email=email,
        token_hash=_hash(token),
        created_at=at,
        expires_at=at + kind.lifetime,
    )
    return token


def _hash(token: str) -> bytes:
    return sha256(token.encode()).digest()


def _compose(kind: Kind, user: User, email: str, token: str) -> EmailMultiAlternatives:
    url = getattr(settings, kind.setting) if kind.setting else ""
    # A user can write anything as their name, so only an address that they have verified gets it.
    letter = Letter(
        subject=str(kind.subject),
        heading=str(kind.subject),
        name=" ".join(user.name.split()) if email == user.verified_email else "",
        lead=str(kind.lead),
        rows=[(pgettext("email", "Code"), token)] if token and not url else [],
        links=[Link(str(kind.action), url.replace("{token}", token))] if url else [],
        note=str(kind.note),
    )
    message = EmailMultiAlternatives(
        letter.subject,
        letter.text(),
        to=[email],
        headers={"Auto-Submitted": "auto-generated"},
    )
    message.attach_alternative(letter.html(), "text/html")
    return message


def sample(*, kind: Kind) -> EmailMultiAlternatives:
    """Return an email about a made-up account, with a made-up token, for previews."""
    email = "ana@example.com"
    user = User(name="Ana Silva", email=email, verified_email=email)
    return _compose(kind, user, email, "made-up-token" if kind.lifetime else "")
