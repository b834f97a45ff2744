"""The rules for accounts: registering, passwords, email addresses, profiles and roles."""

from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib.auth.hashers import check_password, make_password
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from accounts.emails import lookup_form, no_mailbox
from accounts.extensions import ON_NEW_ADMIN, ON_NEW_OWNER, ON_NEW_PROVIDER
from accounts.keys import services as keys
from accounts.links import services as links
from accounts.links.kinds import (
    CHANGE_REQUESTED,
    EMAIL_CHANGED,
    INVITATION,
    PASSWORD_RESET,
    VERIFICATION,
)
from accounts.models import User
from accounts.roles import services as staff_roles
from accounts.sessions import services as sessions
from accounts.sessions.guesses import Guess
from accounts.sessions.tokens import TokenInvalid
from bookit.database.metadata import Changes, save_changes, stored
from bookit.database.retries import retried
from bookit.errors import Conflict, Forbidden, Invalid, database_error_facts

# Passwords have a maximum length, because very long passwords keep the server busy.
MAX_PASSWORD_LENGTH = 128


class EmailTaken(Conflict):
    """An account with this email address already exists."""

    code = "email_taken"


class LastAdmin(Conflict):
    """This is the last active admin. Make another user an admin first."""

    code = "last_admin"


@retried
def register(
    *,
    name: str,
    email: str,
    password: str,
    client: sessions.Client,
    at: datetime,
    metadata: Changes | None = None,
    **fields: str,
) -> sessions.SignedIn:
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
        return sessions.start_session(user=user, client=client, at=at)


def check_own_password(*, user: User, field: str, password: str, client: sessions.Client) -> None:
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
        raise _wrong_password(field)
    guess.forgive()


@retried
def change_password(
    *, user: User, current_password: str, new_password: str, client: sessions.Client
) -> None:
    """Replace the password.

    Triggers end all sessions and emailed links of the account, and cancel a requested change of its
    email address.

    Raises:
        Invalid: the current password is wrong, or the new password is weak.
        LimitExceeded: too many wrong passwords were tried.
    """
    hashed = hash_new_password(
        user=user, current_password=current_password, new_password=new_password, client=client
    )
    replace_password(user=user, hashed=hashed)


def hash_new_password(
    *, user: User, current_password: str, new_password: str, client: sessions.Client
) -> str:
    """Check both passwords of a change, and return the hash of the new one.

    Raises:
        Invalid: the current password is wrong, or the new password is weak.
        LimitExceeded: too many wrong passwords were tried.
    """
    check_own_password(
        user=user, field="current_password", password=current_password, client=client
    )
    _check_strength(new_password, user, field="new_password")
    return make_password(new_password)


def replace_password(*, user: User, hashed: str) -> None:
    """Replace the hash of the user's password.

    Raises:
        Invalid: the password is no longer the one that was checked.
    """
    # If two requests change the password at once, the second one is refused, because the current
    # password that it checked is outdated.
    if not User.objects.filter(pk=user.pk, password=user.password).update(password=hashed):
        raise _wrong_password("current_password")


@retried
def request_password_reset(*, email: str) -> None:
    """Email a link that resets the password, if an active account has this email address.

    The worker, not the request, looks for the account. The response therefore takes the same time
    whether or not the account exists.
    """
    links.enqueue(kind=PASSWORD_RESET, email=lookup_form(email))


@retried
def reset_password(*, token: str, password: str, at: datetime) -> None:
    """Set a new password with a token from an email, which also verifies the email address.

    Triggers end all sessions and emailed links of the account, and cancel a requested change of its
    email address. If the email address was not verified before, the API keys of the account and the
    URLs of its feeds stop working too. Somebody else may have registered with the email address and
    created the keys and the URLs, to read the data of the address's owner later.

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


@retried
def request_verification(*, user: User) -> None:
    """Email a link that verifies the user's new email address.

    Without a new email address, the link verifies the present one, or no email is sent if the
    present one is verified already.
    """
    if user.new_email or not user.email_verified:
        links.enqueue(kind=VERIFICATION, email=user.new_email or user.email, user=user)


@retried
def verify_email(*, token: str, at: datetime) -> None:
    """Verify the email address to which a token was sent.

    A new email address also replaces the old address, and BookIt notifies the old address.

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


@retried
def update_profile(*, user: User, changes: dict[str, Any], client: sessions.Client) -> User:
    """Change the user's own account.

    A new email address takes effect once it is verified. Until then, the old one is kept. The
    present email address, with the password, cancels a change that has not taken effect. Without
    the password, it changes nothing: clients send back what they read.

    Args:
        changes: the new values of fields, and the `current_password` that a new `email` requires.

    Raises:
        Invalid: `current_password` is missing, or the one that came with `email` is wrong.
        EmailTaken: another account has the email address.
        LimitExceeded: too many wrong passwords were tried.
    """
    changes = {**changes}
    email, password = changes.pop("email", None), changes.pop("current_password", None)
    is_new = email not in (None, user.email)
    if is_new and password is None:
        raise Invalid.of("current_password", _("A new email address requires the password."))
    if email is not None and password is not None:
        check_own_password(user=user, field="current_password", password=password, client=client)
        if is_new and User.objects.filter(email=email).exists():
            raise EmailTaken
        changes["new_email"] = email if is_new else ""
    if changes:
        with transaction.atomic():
            if is_new:
                _check_unchanged(user)
            save_changes(user, changes)
            if is_new:
                links.enqueue(kind=VERIFICATION, email=user.new_email, user=user)
                links.enqueue(kind=CHANGE_REQUESTED, email=user.email, user=user)
    return user


@retried
def add_user(*, user: User, actor: User, at: datetime, sends_email: bool = True) -> User:
    """Store a new account with any role, on behalf of an admin.

    The user gets an email with a link. If the account has no password, the link sets a password.
    Otherwise, the link verifies the email address.

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


@retried
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
        was_provider, was_admin = user.role == User.Role.PROVIDER, user.is_admin
        staff_roles.check_changes_user(user=user, actor=actor, changes=changes)
        save_changes(user, changes)
        if is_last_admin and not user.is_admin:
            raise LastAdmin
        if names is not None:
            staff_roles.give_roles(user=user, names=names, actor=actor)
        if user.role == User.Role.PROVIDER and not was_provider:
            _welcome_provider(user, at=at)
        if user.is_admin and not was_admin:
            for welcome in ON_NEW_ADMIN.values():
                welcome(admin=user, at=at)
    return user


def lock_user(*, user_id: UUID) -> tuple[User, bool]:
    """Lock the row of a user. Return the user, and whether they are the last active admin.

    Raises:
        User.DoesNotExist: no account has this id.
    """
    # If the user is an active admin, the rows of all active admins are locked, always in the same
    # order. If two admins demote each other, the second request waits and then sees the first
    # change. For other users, the rows of the admins are not locked: deleting an account can take a
    # minute, during which no admin could sign in.
    admins = User.objects.all().active_admins()
    locked = admins.order_by("id").select_for_update(no_key=True)
    found = [*locked] if admins.filter(pk=user_id).exists() else []
    user = User.objects.all().present().select_for_update(no_key=True).get(pk=user_id)
    if user.is_admin and not found:
        # The user has become an admin in between. This order of locks can deadlock with a change of
        # another admin. One of the two changes then fails, and is tried again, unless it comes from
        # a form of the admin site (see `retried`).
        found = [*locked.all()]
    return user, user.is_admin and [admin.pk for admin in found] == [user.pk]


def _welcome_provider(user: User, *, at: datetime) -> None:
    for welcome in ON_NEW_PROVIDER.values():
        welcome(provider=user, at=at)


def prune_tokens(*, at: datetime) -> int:
    """Delete expired sessions and tokens, including emailed tokens and Django's own sessions.

    Return the number of deleted `Session` rows.
    """
    links.prune_links(at=at)
    return sessions.prune_sessions(at=at)


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


def _wrong_password(field: str) -> Invalid:
    """Return the error of a field that does not contain the user's current password."""
    return Invalid.of(field, _("This is not your current password."))


def _check_unchanged(user: User) -> None:
    """Check that the password is still the one that was checked, and lock the user's row.

    The password may have been changed during the slow hashing. A new email address that was
    requested with the old password must not outlive it.

    Raises:
        Invalid: the password was changed, or the account was deleted.
    """
    unchanged = User.objects.filter(pk=user.pk, password=user.password)
    if not unchanged.select_for_update(no_key=True).exists():
        raise _wrong_password("current_password")


def _save_unique(user: User, **options: Any) -> None:
    try:
        with transaction.atomic():
            user.save(**options)
    except IntegrityError as error:
        constraint = database_error_facts(error)[1]
        if constraint == "user_email_unique":
            raise EmailTaken from None
        raise
