"""The rules for accounts, logins and tokens."""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.contrib.auth.hashers import check_password, make_password
from django.contrib.auth.password_validation import validate_password
from django.contrib.sessions.models import Session as AdminSession
from django.core.exceptions import ValidationError
from django.db import DatabaseError, IntegrityError, transaction
from django.db.models import QuerySet
from django.utils.translation import gettext as _
from rest_framework_simplejwt.settings import api_settings as token_settings
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken
from rest_framework_simplejwt.utils import datetime_from_epoch
from uuid_utils.compat import uuid7

from accounts.emails import lookup_form, no_mailbox
from accounts.extensions import ON_NEW_OWNER, ON_NEW_PROVIDER
from accounts.guesses import Guess
from accounts.keys import services as keys
from accounts.links import services as links
from accounts.links.kinds import (
    CHANGE_REQUESTED,
    EMAIL_CHANGED,
    INVITATION,
    PASSWORD_RESET,
    VERIFICATION,
)
from accounts.models import Session, User
from accounts.roles import services as staff_roles
from accounts.tokens import TOKEN_ERRORS, SessionToken, TokenInvalid
from bookit.database.batches import delete_in_batches
from bookit.database.citus.nodes import is_server_down
from bookit.database.metadata import Changes, save_changes, stored
from bookit.errors import Conflict, Forbidden, Invalid, Unauthenticated, database_error_facts

logger = logging.getLogger(__name__)

# A Django session of the admin site stores the id of its `accounts.Session` under this key.
SESSION_KEY = "accounts.session"

# Passwords have a maximum length, because very long passwords keep the server busy.
MAX_PASSWORD_LENGTH = 128


class EmailTaken(Conflict):
    """An account with this email address already exists."""

    code = "email_taken"


class InvalidCredentials(Unauthenticated):
    """The email address or the password is wrong."""

    code = "invalid_credentials"


class LastAdmin(Conflict):
    """This is the last active admin. Make another user an admin first."""

    code = "last_admin"


@dataclass(frozen=True)
class SignedIn:
    """A user with a fresh pair of tokens."""

    user: User
    refresh: SessionToken

    @property
    def access_token(self) -> str:
        """The token that authenticates requests."""
        return str(self.refresh.access_token)

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
    """The client that a login comes from. It helps the owner of an account recognise logins."""

    address: str | None = None
    name: str = ""


def register(
    *,
    name: str,
    email: str,
    password: str,
    client: Client,
    at: datetime,
    metadata: Changes | None = None,
    **fields: str,
) -> SignedIn:
    """Create an account with the role `user`, sign it in, and email it a verification link.

    Args:
        fields: the phone number, time zone and language, if given.

    Raises:
        Invalid: the password is weak.
        EmailTaken: an account already has this email address, perhaps in a different case.
    """
    user = User(name=name, email=email, metadata=stored(metadata), **fields)
    user.created_at = user.updated_at = user.last_login = at
    _check_strength(password, user, field="password")
    # This check comes before the slow hashing. The constraint catches a concurrent registration.
    if User.objects.filter(email=user.email).exists():
        raise EmailTaken
    user.password = make_password(password)
    with transaction.atomic():
        _save_unique(user)
        links.enqueue(kind=VERIFICATION, email=user.email, user=user)
        return _sign_in(user, client=client, at=at)


def log_in(*, email: str, password: str, client: Client, at: datetime) -> SignedIn:
    """Sign in with an email address and a password.

    Raises:
        InvalidCredentials: the account does not exist or is not active, or the password is wrong.
            The work is the same in all three cases, so the response does not reveal who has an
            account.
        LimitExceeded: too many wrong passwords were tried.
    """
    email = lookup_form(email)
    user = User.objects.filter(email=email).first()
    guess = Guess(user=user, email=email, address=client.address)
    guess.count()
    if user is None:
        make_password(password)
        raise InvalidCredentials
    if not check_password(password, user.password) or not user.is_active:
        raise InvalidCredentials
    guess.forgive()
    # The password may have been changed, or the account deactivated, during the slow hashing.
    unchanged = User.objects.filter(pk=user.pk, password=user.password, is_active=True)
    try:
        with transaction.atomic():
            # A later change waits for this transaction, and its trigger then ends the new session.
            if not unchanged.update(last_login=at):
                raise InvalidCredentials
            return _sign_in(user, client=client, at=at)
    except DatabaseError as error:
        _accept_unstored_login(user, error)
    # No change can be committed while one of the servers is down.
    with transaction.atomic():
        if not unchanged.exists():
            raise InvalidCredentials
        return _sign_in(user, client=client, at=at)


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
        _blacklist(token, session.user, at=at)
        session.revoked_at = at
        session.save(update_fields=["revoked_at"])


def sessions_of(*, user: User, at: datetime) -> QuerySet[Session]:
    """Return the sessions of a user that have not ended."""
    return Session.objects.filter(user=user, revoked_at=None, expires_at__gt=at)


def end_own_session(*, session_id: UUID, user: User, at: datetime) -> None:
    """End one of the user's own sessions: a login to the API or to the admin site.

    Raises:
        Session.DoesNotExist: the user has no such session, or it has ended already.
    """
    if not sessions_of(user=user, at=at).filter(pk=session_id).update(revoked_at=at):
        raise Session.DoesNotExist
    if user.is_staff:
        _end_admin_session(session_id, at=at)


def end_any_session(*, session_id: UUID, actor: User, at: datetime) -> None:
    """End a session of any user on behalf of an admin; see `end_own_session`.

    Access tokens of the session work until they expire, within `ACCESS_TOKEN_EXPIRE_MINUTES`.

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


def _end_admin_session(session_id: UUID, *, at: datetime) -> None:
    """Sign the browser of a session out of the admin site.

    Django encodes the content of its sessions, so all of them are read. Only admins and staff have
    such sessions, so there are few.
    """
    for row in AdminSession.objects.filter(expire_date__gt=at).iterator():
        if row.get_decoded().get(SESSION_KEY) == str(session_id):
            row.delete()


def record_admin_login(*, user: User, client: Client, lifetime: timedelta, at: datetime) -> Session:
    """Record a login to the admin site as a session, which has no refresh tokens."""
    user.last_login = at
    try:
        user.save(update_fields=["last_login"])
    except DatabaseError as error:
        _accept_unstored_login(user, error)
    session = _new_session(user, client=client, at=at)
    session.last_used_at, session.expires_at = at, at + lifetime
    session.save()
    return session


def record_admin_logout(*, session_id: UUID, at: datetime) -> None:
    """Record a logout from the admin site."""
    Session.objects.filter(pk=session_id, revoked_at=None).update(revoked_at=at)


def check_own_password(*, user: User, field: str, password: str, client: Client) -> None:
    """Check that the signed-in user knows the password of their account.

    Args:
        field: the field of the request that contains the password.

    Raises:
        Invalid: the password is wrong.
        LimitExceeded: too many wrong passwords were tried.
    """
    guess = Guess(user=user, email=user.email, address=client.address)
    guess.count()
    if not check_password(password, user.password):
        raise Invalid.of(field, _("This is not your current password."))
    guess.forgive()


def change_password(
    *, user: User, current_password: str, new_password: str, client: Client
) -> None:
    """Replace the password. Triggers end all sessions and emailed links of the account.

    Raises:
        Invalid: the current password is wrong, or the new password is weak.
        LimitExceeded: too many wrong passwords were tried.
    """
    before = user.password
    check_own_password(
        user=user, field="current_password", password=current_password, client=client
    )
    _check_strength(new_password, user, field="new_password")
    user.password = make_password(new_password)
    # If two requests change the password at once, the second one is refused, because the current
    # password that it checked is outdated.
    if not User.objects.filter(pk=user.pk, password=before).update(password=user.password):
        raise Invalid.of("current_password", _("This is not your current password."))


def request_password_reset(*, email: str) -> None:
    """Email a link that resets the password, if an active account has this email address.

    The worker, not the request, looks for the account. The response therefore takes the same time
    whether or not the account exists.
    """
    links.enqueue(kind=PASSWORD_RESET, email=lookup_form(email))


def reset_password(*, token: str, password: str, at: datetime) -> None:
    """Set a new password with a token from an email, which also verifies the email address.

    Triggers end all sessions and emailed links of the account. If the email address was not
    verified before, the API keys of the account and the URL of its feed stop working too: somebody
    else may have registered with this email address and created them, to read the data of the
    address's owner later.

    Raises:
        TokenInvalid: the token is wrong, used, expired or revoked.
        Invalid: the password is weak. The token can be used again.
    """
    link = links.find(token=token, kinds=[PASSWORD_RESET, INVITATION], at=at)
    _check_strength(password, link.user, field="password")
    hashed = make_password(password)
    with transaction.atomic():
        user = links.use(link=link)
        if user.email != link.email:
            raise TokenInvalid
        if not user.email_verified:
            keys.delete_keys(owner=user)
            for end_access in ON_NEW_OWNER.values():
                end_access(owner=user)
        user.password, user.verified_email = hashed, link.email
        user.save(update_fields=["password", "verified_email"])


def request_verification(*, user: User) -> None:
    """Email a link that verifies the user's new email address.

    Without a new email address, the link verifies the present one, unless it is verified already.
    """
    if user.new_email or not user.email_verified:
        links.enqueue(kind=VERIFICATION, email=user.new_email or user.email, user=user)


def verify_email(*, token: str, at: datetime) -> None:
    """Verify the email address to which a token was sent.

    If it is a new email address, it also replaces the old one, and BookIt notifies the old one.

    Raises:
        TokenInvalid: the token is wrong, used, expired or revoked.
        EmailTaken: another account took the new address after the change was requested.
    """
    link = links.find(token=token, kinds=[VERIFICATION], at=at)
    with transaction.atomic():
        user = links.use(link=link)
        if link.email not in (user.email, user.new_email):
            raise TokenInvalid
        old, user.email, user.verified_email = user.email, link.email, link.email
        _save_unique(user, update_fields=["email", "verified_email"])
        if old != user.email:
            links.enqueue(kind=EMAIL_CHANGED, email=old, user=user)


def rename(*, user: User, name: str) -> None:
    """Change the name of an account."""
    save_changes(user, {"name": name})


def update_profile(*, user: User, changes: dict[str, Any], client: Client) -> User:
    """Change the user's own account.

    A new email address takes effect once it is verified. Until then, the old one is kept. Sending
    the present email address cancels a change that has not taken effect.

    Args:
        changes: the new values of fields, and the `current_password` that a new `email` requires.

    Raises:
        Invalid: `current_password` is missing or wrong.
        EmailTaken: another account has the email address.
        LimitExceeded: too many wrong passwords were tried.
    """
    changes = {**changes}
    email, password = changes.pop("email", None), changes.pop("current_password", None)
    is_new = email not in (None, user.email)
    if is_new:
        if password is None:
            raise Invalid.of("current_password", _("A new email address requires the password."))
        check_own_password(user=user, field="current_password", password=password, client=client)
        if User.objects.filter(email=email).exists():
            raise EmailTaken
        changes["new_email"] = email
    elif email and user.new_email:
        changes["new_email"] = ""
    if changes:
        with transaction.atomic():
            save_changes(user, changes)
            if is_new:
                links.enqueue(kind=VERIFICATION, email=user.new_email, user=user)
                links.enqueue(kind=CHANGE_REQUESTED, email=user.email, user=user)
    return user


def add_user(*, user: User, actor: User, at: datetime, sends_email: bool = True) -> User:
    """Store a new account with any role, on behalf of an admin.

    The user gets an email: with a link that sets a password if the account has none, and otherwise
    with a link that verifies the email address.

    Args:
        sends_email: whether the user gets this email. An import of many accounts sends none.

    Raises:
        Forbidden: the actor is not an admin.
        EmailTaken: an account already has this email address.
    """
    if not actor.is_admin:
        raise Forbidden
    user.created_at = user.updated_at = at
    if not user.password:
        user.set_unusable_password()
    with transaction.atomic():
        _save_unique(user)
        if sends_email:
            kind = VERIFICATION if user.has_usable_password() else INVITATION
            links.enqueue(kind=kind, email=user.email, user=user)
        if user.role == User.Role.PROVIDER:
            _welcome_provider(user, at=at)
    return user


def add_customer(
    *, name: str, email: str, phone: str, timezone: str, language: str, at: datetime
) -> User:
    """Store an account for a customer. The caller has checked that the actor may book for others.

    The customer gets no email about the account, only about their bookings. A password reset gives
    them access to the account, and verifies its email address.

    Args:
        email: empty if the customer has no email address. Nobody can sign in to such an account.

    Raises:
        EmailTaken: an account already has this email address.
    """
    user = User(name=name, phone=phone, timezone=timezone, language=language)
    user.created_at = user.updated_at = at
    user.email = email or no_mailbox(user.pk)
    user.set_unusable_password()
    _save_unique(user)
    return user


def update_user(*, user_id: UUID, actor: User, changes: dict[str, Any], at: datetime) -> User:
    """Change an account, including its role, its staff roles and whether it is active.

    Raises:
        User.DoesNotExist: no account has this id.
        Forbidden: the actor may not change accounts, or may not make these changes; see
            `accounts.roles.services`.
        Invalid: a staff role does not exist.
        LastAdmin: no active admin would be left.
    """
    if not actor.may("accounts.change_user"):
        raise Forbidden
    changes = dict(changes)
    names = changes.pop("roles", None)
    with transaction.atomic():
        user, is_last_admin = lock_user(user_id=user_id)
        role = user.role
        staff_roles.check_changes_user(user=user, actor=actor, changes=changes)
        save_changes(user, changes)
        if is_last_admin and not user.is_admin:
            raise LastAdmin
        if names is not None:
            staff_roles.give_roles(user=user, names=names, actor=actor)
        if user.role == User.Role.PROVIDER != role:
            _welcome_provider(user, at=at)
    return user


def lock_user(*, user_id: UUID) -> tuple[User, bool]:
    """Lock the row of a user. Return the user, and whether they are the last active admin.

    Raises:
        User.DoesNotExist: no account has this id.
    """
    # The rows of all active admins are locked, always in the same order. If two admins demote each
    # other, the second request waits and then sees the first change.
    admins = list(User.objects.all().active_admins().order_by("id").select_for_update(no_key=True))
    user = User.objects.all().present().select_for_update(no_key=True).get(pk=user_id)
    return user, [admin.pk for admin in admins] == [user.pk]


def _welcome_provider(user: User, *, at: datetime) -> None:
    for welcome in ON_NEW_PROVIDER.values():
        welcome(provider=user, at=at)


def prune_tokens(*, at: datetime) -> int:
    """Delete expired sessions and tokens, including emailed tokens and Django's own sessions.

    Return the number of deleted `Session` rows.
    """
    delete_in_batches(OutstandingToken.objects.filter(expires_at__lt=at), by="expires_at")
    links.prune_links(at=at)
    delete_in_batches(AdminSession.objects.filter(expire_date__lt=at), by="expire_date")
    return delete_in_batches(Session.objects.filter(expires_at__lt=at), by="expires_at")


def _check_strength(password: str, user: User, *, field: str) -> None:
    if len(password) > MAX_PASSWORD_LENGTH:
        problems = [
            _("This password is longer than %(max_password_length)s characters.")
            % {"max_password_length": MAX_PASSWORD_LENGTH}
        ]
    else:
        try:
            return validate_password(password, user)
        except ValidationError as error:
            problems = error.messages
    raise Invalid(errors={field: problems})


def _save_unique(user: User, **options: Any) -> None:
    try:
        with transaction.atomic():
            user.save(**options)
    except IntegrityError as error:
        constraint = database_error_facts(error)[1]
        if constraint == "user_email_unique":
            raise EmailTaken from None
        raise


def _sign_in(user: User, *, client: Client, at: datetime) -> SignedIn:
    return _issue(_new_session(user, client=client, at=at), at=at)


def _accept_unstored_login(user: User, error: DatabaseError) -> None:
    """Accept that the time of a login was not stored, if the reason is a server that is down.

    If the database is distributed, every server has a copy of each user. So no user can be changed
    while one of the servers is down. But users can still sign in.

    Raises:
        DatabaseError: the error has another reason.
    """
    if not is_server_down(error):
        raise error
    logger.warning("the time of a login of %s was not stored: a server is down", user.pk)


def _new_session(user: User, *, client: Client, at: datetime) -> Session:
    return Session(
        id=uuid7(),
        user=user,
        created_at=at,
        address=client.address,
        client=client.name[:300],
    )


def _issue(session: Session, *, at: datetime) -> SignedIn:
    """Create the next refresh token of a session, and store its id so that it can be revoked."""
    token = SessionToken()
    token["user_id"] = str(session.user_id)
    token["session"] = str(session.pk)
    expires_at = datetime_from_epoch(token["exp"])
    session.last_used_at, session.expires_at = at, expires_at
    session.save()
    # The token itself is not stored, so that somebody who reads the table cannot use it.
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
