"""The rules for sessions: how they start, how their tokens are exchanged, and what ends them.

A session is a login to the API, with its tokens, or a login to the admin site. Whatever ends a
session, its access tokens work until they expire, within `ACCESS_TOKEN_EXPIRE_MINUTES`, except
while the account is deactivated. What ended access tokens cannot do is in `docs/security.md`.
"""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.contrib.auth.hashers import check_password, make_password
from django.contrib.sessions.models import Session as AdminSession
from django.db import DatabaseError, transaction
from django.db.models import QuerySet
from django.utils.translation import gettext as _
from rest_framework_simplejwt.settings import api_settings as token_settings
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken
from rest_framework_simplejwt.utils import datetime_from_epoch
from uuid_utils.compat import uuid7

from accounts.emails import lookup_form
from accounts.models import User
from accounts.sessions.guesses import Guess
from accounts.sessions.models import Session
from accounts.sessions.tokens import TOKEN_ERRORS, SessionToken, TokenInvalid
from bookit.database.batches import delete_in_batches
from bookit.database.citus.nodes import is_server_down
from bookit.database.retries import retried
from bookit.database.rows import fetch
from bookit.errors import Forbidden, Invalid, Unauthenticated

logger = logging.getLogger(__name__)

# Waits for changes that end the sessions of a user, and makes later changes wait.
#
# Parameters: user_id uuid.
# Columns: one, which is void.
# Invariant: the trigger `user_sessions_end` takes the same lock.
LOCK_ACCOUNT = "SELECT pg_advisory_xact_lock(uuid_hash_extended(%(user_id)s::uuid, 2))"

# A web server refuses tokens from the future. Tokens are therefore dated back, because the clock of
# the server that checks a token may be behind the clock of the server that issued it.
CLOCK_TOLERANCE = timedelta(seconds=30)

# A Django session of the admin site stores the id of its `accounts.Session` under this key.
SESSION_KEY = "accounts.session"


class InvalidCredentials(Unauthenticated):
    """The email address or the password is wrong."""

    code = "invalid_credentials"


@dataclass(frozen=True)
class SignedIn:
    """A user with a fresh pair of tokens."""

    user: User
    refresh: SessionToken

    @property
    def access_token(self) -> str:
        """The token that authenticates requests."""
        token = self.refresh.access_token
        token["iat"] = self.refresh["iat"]
        return str(token)

    @property
    def refresh_token(self) -> str:
        """The token that can be exchanged once for the next pair."""
        return str(self.refresh)

    @property
    def expires_in(self) -> int:
        """The number of seconds for which the access token is valid."""
        return int(token_settings.ACCESS_TOKEN_LIFETIME.total_seconds())


@dataclass(frozen=True)
class Client:
    """The client that sent a request. It helps the owner of an account recognise logins.

    Args:
        address: the IP address, or None if it is unknown.
        name: the `User-Agent` header.
    """

    address: str | None = None
    name: str = ""


def authenticate(*, email: str, password: str, address: str | None) -> User:
    """Return the user with this email address and this password.

    If the hash of the password has outdated parameters, a new hash replaces it.

    Args:
        address: the IP address of the client, or None if it is unknown.

    Raises:
        InvalidCredentials: the account does not exist or is not active, or the password is wrong.
            The work is the same in all three cases, so the response does not reveal who has an
            account.
        LimitExceeded: too many wrong passwords were tried.
    """
    email = lookup_form(email)
    user = User.objects.filter(email=email).first()
    guess = Guess(user=user, email=email, address=address)
    guess.count()
    if user is None:
        make_password(password)
        raise InvalidCredentials
    outdated: list[str] = []  # Contains the password if its hash has outdated parameters.
    if not check_password(password, user.password, setter=outdated.append) or not user.is_active:
        raise InvalidCredentials
    guess.forgive()
    if outdated:
        _renew_hash(user, password)
    return user


@retried
def log_in(*, email: str, password: str, client: Client, at: datetime) -> SignedIn:
    """Sign in to the API with an email address and a password; see `authenticate`.

    Raises:
        InvalidCredentials: the account does not exist or is not active, or the password is wrong.
        LimitExceeded: too many wrong passwords were tried.
    """
    user = authenticate(email=email, password=password, address=client.address)
    # The password may have been changed, or the account deactivated, during the slow hashing.
    unchanged = User.objects.filter(pk=user.pk, password=user.password, is_active=True)
    try:
        with transaction.atomic():
            # A later change waits for this transaction, and its trigger then ends the new session.
            if not unchanged.update(last_login=at):
                raise InvalidCredentials
            return start_session(user=user, client=client, at=at)
    except DatabaseError as error:
        _accept_unstored(user, error, "the time of a login")
    with transaction.atomic():
        # The server may come back at any moment. A change of the account takes the same lock.
        fetch(LOCK_ACCOUNT, {"user_id": user.pk})
        if not unchanged.exists():
            raise InvalidCredentials
        return start_session(user=user, client=client, at=at)


def start_session(*, user: User, client: Client, at: datetime) -> SignedIn:
    """Start a session of a user, and issue its first pair of tokens.

    The caller has checked who the user is.
    """
    return _issue(_new_session(user, client=client, at=at), at=at)


@retried
def refresh(*, refresh_token: str, at: datetime) -> SignedIn:
    """Exchange a refresh token for the next pair of tokens.

    If a token is used twice, somebody may have copied it, and it is unknown whether the owner or
    the thief uses it now. The session is therefore revoked, with all its refresh tokens (RFC 9700,
    section 4.14.2).

    Raises:
        TokenInvalid: the token is malformed, expired or already used, or its session has ended.
    """
    token, session_id = _parse_token(refresh_token)
    with transaction.atomic():
        # The lock makes concurrent requests with the same token run one after the other.
        session = (
            Session.objects.select_for_update(of=("self",), no_key=True)
            .select_related("user")
            .filter(pk=session_id, revoked_at=None, user__is_active=True)
            .first()
        )
        if session is None:
            raise TokenInvalid
        reused = not _blacklist(token, session.user, at=at)
        if reused:
            session.revoked_at = at
            session.save(update_fields=["revoked_at"])
        else:
            return _issue(session, at=at)
    # Raised outside the transaction, because an error inside would roll back the revocation.
    raise TokenInvalid


@retried
def log_out(*, refresh_token: str, at: datetime) -> None:
    """End the session of a refresh token, and with it all refresh tokens of the session.

    Raises:
        TokenInvalid: the token is malformed or expired, or its session has ended already.
    """
    token, session_id = _parse_token(refresh_token)
    with transaction.atomic():
        session = (
            Session.objects.select_for_update(of=("self",), no_key=True)
            .select_related("user")
            .filter(pk=session_id, revoked_at=None)
            .first()
        )
        if session is None:
            raise TokenInvalid
        # The session ends anyway. This lists the token in the admin site as used or revoked.
        _blacklist(token, session.user, at=at)
        session.revoked_at = at
        session.save(update_fields=["revoked_at"])


def sessions_of(*, user: User, at: datetime) -> QuerySet[Session]:
    """Return the sessions of a user that have not ended."""
    return Session.objects.filter(user=user, revoked_at=None, expires_at__gt=at)


@retried
def end_own_session(*, session_id: UUID, user: User, at: datetime) -> None:
    """End one of the user's own sessions: a login to the API or to the admin site.

    Raises:
        Session.DoesNotExist: the user has no such session, or it has ended already.
    """
    if not sessions_of(user=user, at=at).filter(pk=session_id).update(revoked_at=at):
        raise Session.DoesNotExist


def end_any_session(*, session_id: UUID, actor: User, at: datetime) -> None:
    """End a session of any user on behalf of an admin; see `end_own_session`.

    Raises:
        Forbidden: the actor is not an admin.
        Session.DoesNotExist: there is no such session.
        Invalid: the session has ended already.
    """
    if not actor.is_admin:
        raise Forbidden
    session = Session.objects.select_related("user").get(pk=session_id)
    try:
        end_own_session(session_id=session_id, user=session.user, at=at)
    except Session.DoesNotExist:
        raise Invalid.of("", _("This session has ended already.")) from None


@retried
def record_admin_login(*, user: User, client: Client, lifetime: timedelta, at: datetime) -> Session:
    """Record a login to the admin site as a session, which has no refresh tokens."""
    user.last_login = at
    try:
        user.save(update_fields=["last_login"])
    except DatabaseError as error:
        _accept_unstored(user, error, "the time of a login")
    session = _new_session(user, client=client, at=at)
    session.last_used_at, session.expires_at = at, at + lifetime
    session.save()
    return session


@retried
def record_admin_logout(*, session_id: UUID, at: datetime) -> None:
    """Record a logout from the admin site."""
    Session.objects.filter(pk=session_id, revoked_at=None).update(revoked_at=at)


def prune_sessions(*, at: datetime) -> int:
    """Delete what has expired: sessions, refresh tokens, and Django's sessions of the admin site.

    Return the number of deleted `Session` rows.
    """
    delete_in_batches(OutstandingToken.objects.filter(expires_at__lt=at), by="expires_at")
    delete_in_batches(AdminSession.objects.filter(expire_date__lt=at), by="expire_date")
    return delete_in_batches(Session.objects.filter(expires_at__lt=at), by="expires_at")


def _renew_hash(user: User, password: str) -> None:
    """Store a new hash of the password of a user.

    As after a change of the password, triggers end all sessions of the account, its emailed links,
    and a change of its email address that is not verified yet.

    Raises:
        InvalidCredentials: the password was changed meanwhile.
    """
    old, user.password = user.password, make_password(password)
    try:
        if User.objects.filter(pk=user.pk, password=old).update(password=user.password):
            return
    except DatabaseError as error:
        _accept_unstored(user, error, "a new hash")
        user.password = old
        return
    # Another request has changed the password, or has also stored a new hash of it.
    user.refresh_from_db(fields=["password"])
    if not check_password(password, user.password):
        raise InvalidCredentials


def _accept_unstored(user: User, error: DatabaseError, what: str) -> None:
    """Accept that a part of a login was not stored, if the reason is a server that is down.

    If the database is distributed, every server has a copy of each user. So no user can be changed
    while one of the servers is down. But users can still sign in.

    Raises:
        DatabaseError: the error has another reason.
    """
    if not is_server_down(error):
        raise error
    logger.warning("%s of %s was not stored: a server is down", what, user.pk)


def _new_session(user: User, *, client: Client, at: datetime) -> Session:
    """Return a session without its last use and its expiry. The caller sets them and saves it."""
    return Session(
        id=uuid7(),
        user=user,
        created_at=at,
        address=client.address,
        client=client.name[:300],
    )


def _issue(session: Session, *, at: datetime) -> SignedIn:
    """Create the next refresh token of a session, and save the session, which expires with it."""
    token = SessionToken()
    token.set_iat(at_time=at - CLOCK_TOLERANCE)
    token["user_id"] = str(session.user_id)
    token["session"] = str(session.pk)
    expires_at = datetime_from_epoch(token["exp"])
    session.last_used_at, session.expires_at = at, expires_at
    session.save()
    # Only the token's id is stored, so that somebody who reads the table cannot use the token.
    OutstandingToken.objects.create(
        user=session.user, jti=token["jti"], token="", created_at=at, expires_at=expires_at
    )
    return SignedIn(session.user, token)


def _blacklist(token: SessionToken, user: User, *, at: datetime) -> bool:
    """Mark a token as used. Return False if it was already marked."""
    outstanding, _is_new = OutstandingToken.objects.get_or_create(
        jti=token["jti"],
        defaults={
            "user": user,
            "token": "",
            "created_at": at,
            "expires_at": datetime_from_epoch(token["exp"]),
        },
    )
    return BlacklistedToken.objects.get_or_create(token=outstanding)[1]


def _parse_token(raw: str) -> tuple[SessionToken, UUID]:
    """Check the signature and expiry of a refresh token. Return it with the id of its session.

    Raises:
        TokenInvalid: the token is malformed, expired or not signed with our key.
    """
    try:
        token = SessionToken(raw)  # type: ignore[arg-type]
        if not isinstance(token["jti"], str):
            raise TokenInvalid
        return token, UUID(token["session"])
    except TOKEN_ERRORS:
        raise TokenInvalid from None
