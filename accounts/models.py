"""Users and their rights."""

import re
from functools import cached_property
from typing import Any, ClassVar
from uuid import UUID

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX
from django.contrib.auth.models import Permission, PermissionsMixin
from django.contrib.postgres.indexes import GinIndex, OpClass
from django.core.validators import RegexValidator
from django.db import models
from django.db.models.functions import Lower, Now, Upper
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from accounts import triggers
from accounts.emails import canonical, lookup_form, mailbox, validate_spelling
from bookit.database.citus.layout import Layout
from bookit.database.metadata import MetadataField, metadata_fits
from bookit.mailboxes import NOWHERE
from bookit.times import validate_zone

# A BCP 47 language tag, such as `en` or `pt-BR`.
validate_language = RegexValidator(
    r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*\Z", _("This is not a language tag such as en or pt-BR.")
)
validate_phone = RegexValidator(
    r"^\+?[0-9][0-9 ()./-]{2,30}\Z", _("This is not a phone number such as +351 912 345 678.")
)


def in_roles(*roles: str) -> models.Func:
    """Return the condition that a user has one of the given roles.

    The roles are a part of the SQL. If they were parameters, PostgreSQL could not use a partial
    index with the same condition.
    """
    names = ", ".join(f"'{role}'" for role in roles)
    return models.Func(
        models.F("role"),
        template=f"%(expressions)s IN ({names})",
        output_field=models.BooleanField(),
    )


# A search by phone number needs at least this many digits, because the digits of a country code
# would find almost everybody.
FEWEST_DIGITS = 4


def digits_of(column: str) -> models.Func:
    """Return the expression for the digits of a phone number.

    The pattern is a part of the SQL. If it were a parameter, PostgreSQL could not use an index on
    this expression.
    """
    return models.Func(
        models.F(column),
        template=r"regexp_replace(%(expressions)s, '[^0-9]', '', 'g')",
        output_field=models.TextField(),
    )


class UserQuerySet(models.QuerySet["User"]):
    """Queries for users."""

    def active_admins(self) -> "UserQuerySet":
        """Return the active admins."""
        return self.filter(role=User.Role.ADMIN, is_active=True)

    def keepers(self) -> "UserQuerySet":
        """Return the users who may keep calendars; see `User.keeps`."""
        return self.filter(in_roles(*User.KEEPERS), is_active=True)

    def present(self) -> "UserQuerySet":
        """Return the users whose account has not been deleted."""
        return self.filter(deleted_at=None)

    def with_roles(self) -> "UserQuerySet":
        """Annotate each user with `has_roles`: whether the user has a staff role."""
        held = User.groups.through.objects.filter(user_id=models.OuterRef("pk"))
        return self.annotate(has_roles=models.Exists(held))

    def reached_by(self, words: str) -> "UserQuerySet":
        """Return the users whose name or phone number contains `words`, ignoring case.

        Users whose email address begins with `words` are found, too. A domain would find almost
        everybody, so `words` must be the beginning of the address. Only the digits of phone numbers
        are compared, and only if `words` looks like a part of one and has at least `FEWEST_DIGITS`
        digits.
        """
        has_mailbox = ~models.Q(email__endswith=NOWHERE)
        found = models.Q(name__icontains=words) | models.Q(has_mailbox, email__istartswith=words)
        digits = re.sub(r"[^0-9]", "", words)
        if len(digits) >= FEWEST_DIGITS and re.fullmatch(r"[0-9+ ()./-]+", words):
            found |= models.Q(digits__contains=digits)
        return self.annotate(digits=digits_of("phone")).filter(found)

    def without_mailbox(self, *, name: str, phone: str) -> "UserQuerySet":
        """Return the users without an email address who have this name and this phone number.

        Users who have a password are left out. They can change their name and phone number to those
        of somebody else.
        """
        same = {"name__iexact": name, "digits": re.sub(r"[^0-9]", "", phone)}
        users = self.annotate(digits=digits_of("phone")).filter(
            password__startswith=UNUSABLE_PASSWORD_PREFIX
        )
        return users.filter(email__endswith=NOWHERE, **same)

    def search(self, words: str) -> "UserQuerySet":
        """Return the users whose name or email address contains `words`, ignoring case."""
        in_address = models.Q(~models.Q(email__endswith=NOWHERE), email__icontains=words)
        return self.filter(models.Q(name__icontains=words) | in_address)


class UserManager(BaseUserManager["User"]):
    """The methods that Django's command `createsuperuser` needs."""

    def create_user(self, email: str, name: str, password: str | None, **fields: Any) -> "User":
        """Store a new user with a hashed password."""
        user = self.model(email=canonical(email), name=name, **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def get_by_natural_key(self, username: str | None) -> "User":
        """Return the user with this email address, ignoring case."""
        return self.get(email=lookup_form(username or ""))

    def create_superuser(self, email: str, name: str, password: str | None = None) -> "User":
        """Store a new admin."""
        return self.create_user(email, name, password, role=User.Role.ADMIN)


class User(AbstractBaseUser, PermissionsMixin):
    """An account. Its owner signs in with an email address, which is stored in lower case."""

    layout = Layout.EVERYWHERE

    class Role(models.TextChoices):
        """The kinds of users."""

        USER = "user", _("User")
        PROVIDER = "provider", _("Provider")
        ADMIN = "admin", _("Admin")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=200)
    email = models.EmailField(_("email address"), validators=[validate_spelling])
    new_email = models.EmailField(
        _("new email address"),
        blank=True,
        default="",
        db_default="",
        editable=False,
        help_text=_("Replaces the email address once it is verified."),
    )
    # The verified email address is stored instead of a flag, so that a new email address never
    # counts as verified by mistake.
    verified_email = models.EmailField(blank=True, default="", db_default="", editable=False)
    email_verified = models.GeneratedField(
        expression=models.ExpressionWrapper(
            models.Q(verified_email=models.F("email")), models.BooleanField()
        ),
        output_field=models.BooleanField(),
        db_persist=True,
    )
    phone = models.CharField(
        max_length=32, blank=True, default="", db_default="", validators=[validate_phone]
    )
    role = models.CharField(max_length=10, choices=Role, default=Role.USER)
    timezone = models.CharField(max_length=64, default="UTC", validators=[validate_zone])
    language = models.CharField(
        max_length=35, default="en", db_default="en", validators=[validate_language]
    )
    is_active = models.BooleanField(
        "active",
        default=True,
        help_text=_("Inactive users cannot sign in, and their tokens stop working at once."),
    )
    metadata = MetadataField()
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)
    deleted_at = models.DateTimeField(
        null=True,
        blank=True,
        editable=False,
        help_text=_("The row stays, without personal data, because bookings refer to it."),
    )

    # Roles are the only source of permissions: `groups` are the groups of the user's staff roles
    # (`accounts.roles`), and permissions cannot be given to a single user.
    user_permissions = None  # type: ignore[assignment]
    # Whether the user can have staff roles. `UserQuerySet.with_roles` replaces this value with the
    # exact one. If it is false, the roles are not looked up, which saves a query for users without
    # roles.
    has_roles = True
    # The id of the API key that authenticated the request of this user, if any. It is not stored.
    api_key_id: UUID | None = None

    objects = UserManager.from_queryset(UserQuerySet)()

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS = ["name"]

    class Meta:
        ordering = ["created_at", "id"]
        indexes = [
            models.Index(fields=["created_at", "id"], name="user_by_age"),
            # Most users are active customers. With the next two indexes, lists of providers, of
            # admins and of inactive users do not read all users.
            models.Index(fields=["role", "created_at", "id"], name="user_by_role"),
            models.Index(
                fields=["created_at", "id"],
                condition=models.Q(is_active=False),
                name="user_inactive",
            ),
            # For the public list of providers, which includes admins with services. The index
            # leaves out customers and inactive users.
            models.Index(
                fields=["name", "id"],
                include=["role"],
                condition=models.Q(in_roles("provider", "admin"), is_active=True),
                name="keeper_by_name",
            ),
            GinIndex(
                OpClass(Upper("name"), name="gin_trgm_ops"),
                OpClass(Upper("email"), name="gin_trgm_ops"),
                name="user_search",
            ),
            GinIndex(
                OpClass(digits_of("phone"), name="gin_trgm_ops"),
                name="user_by_phone",
            ),
        ]
        constraints = [
            # Together with the next constraint, this one makes email addresses unique regardless of
            # case.
            models.UniqueConstraint(
                fields=["email"],
                name="user_email_unique",
                # With this code, a form of Django shows the error at the field.
                violation_error_code="unique",
                violation_error_message=_("An account with this email address already exists."),
            ),
            models.CheckConstraint(
                condition=models.Q(email=Lower("email")), name="user_email_lower_case"
            ),
            # Only the domain of an email address can have non-ASCII letters. It is stored in its
            # `xn--` form.
            models.CheckConstraint(
                condition=models.Q(email__regex="^[!-~]+$"), name="user_email_ascii"
            ),
            models.CheckConstraint(
                condition=models.Q(role__in=["user", "provider", "admin"]), name="user_role_known"
            ),
            models.CheckConstraint(
                condition=models.Q(deleted_at=None)
                | models.Q(is_active=False, password__startswith="!"),  # noqa: S106 - not a password
                name="user_deleted_cannot_sign_in",
            ),
            metadata_fits("user_metadata_fits"),
            triggers.SESSIONS_END,
            triggers.LINKS_END,
            triggers.NEW_EMAIL_ENDS,
            triggers.UPDATED_AT,
        ]

    def in_words(self) -> str:
        """Return the name; without one, the email address or "a former user"."""
        return self.name or (gettext("a former user") if self.deleted_at else self.email)

    def __str__(self) -> str:
        return self.email

    @property
    def mailbox(self) -> str:
        """The email address; empty if the account's owner has none."""
        return mailbox(self.email)

    # A user's rights follow from the role and the staff roles. Django's flags `is_staff` and
    # `is_superuser` are not stored, because a stored flag could contradict the roles.
    @property
    def is_staff(self) -> bool:
        """Whether the user may enter the admin site: admins, and users with a staff permission."""
        return self.is_admin or (self.is_active and bool(self.granted))

    @property
    def is_superuser(self) -> bool:  # type: ignore[override]
        """Whether the user has every permission."""
        return self.is_admin

    @property
    def is_admin(self) -> bool:
        """Whether the user is an active admin."""
        return self.is_active and self.role == self.Role.ADMIN

    # Apart from staff roles and from what users may do with their own bookings, one rule decides
    # who may see and change the bookings of a calendar: admins, and the provider of the calendar as
    # long as they are a "keeper", an active provider or admin. `keeps` is the whole rule, for one
    # calendar. `may` adds the staff roles. Three more forms state only the part about the provider:
    # `is_keeper` if the provider is the user, `on_own_calendars` for a queryset, and `keeps_own`
    # for an SQL statement that joins the provider. All code that shows bookings uses one of these
    # forms, for example lists, emails and feeds.
    KEEPERS: ClassVar = (Role.PROVIDER, Role.ADMIN)

    @property
    def is_keeper(self) -> bool:
        """Whether the user may keep calendars: an active provider or admin."""
        return self.is_active and self.role in self.KEEPERS

    def keeps(self, provider_id: UUID | None) -> bool:
        """Return whether the user keeps (manages) the calendars of this provider.

        Admins keep all calendars, providers keep their own, and other users keep none. A user who
        was demoted or deactivated no longer keeps the calendars that they provide.
        """
        return self.is_admin or (self.is_keeper and provider_id == self.pk)

    @cached_property
    def granted(self) -> frozenset[str]:
        """The permissions of the user's staff roles, for example `bookings.view_booking`."""
        if not self.has_roles:
            return frozenset()
        found = Permission.objects.filter(group__user=self).order_by()
        pairs = found.values_list("content_type__app_label", "codename")
        return frozenset(f"{app}.{name}" for app, name in pairs)

    @cached_property
    def roles(self) -> list[str]:
        """The names of the user's staff roles, in alphabetical order."""
        if not self.has_roles:
            return []
        return [*self.groups.order_by("name").values_list("name", flat=True)]

    def may(self, permission: str, provider_id: UUID | None = None) -> bool:
        """Return whether the user may do what a Django permission allows.

        The API and the admin site both use this rule. A user who keeps the calendars of
        `provider_id` needs no permission. The permissions of a staff role apply to all calendars.
        What users may do with their own bookings and reviews does not depend on permissions.

        Args:
            permission: for example `bookings.change_booking`.
            provider_id: the provider of the calendar; None if only admins and staff roles count.
        """
        return self.keeps(provider_id) or (self.is_active and permission in self.granted)

    @property
    def is_below_admins(self) -> bool:
        """Whether the role is not `admin`, regardless of whether the account is active."""
        return self.role != self.Role.ADMIN

    def has_perm(self, perm: str, obj: Any = None) -> bool:
        """Return whether the user has a permission. The admin site calls this."""
        return self.may(perm)

    def has_module_perms(self, app_label: str) -> bool:
        """Return whether the user has any permission of an app. The admin site calls this."""
        return self.is_admin or (
            self.is_active and any(each.startswith(f"{app_label}.") for each in self.granted)
        )

    def on_own_calendars(self, provider: str) -> models.Q:
        """Return a condition for the rows of calendars that the user both provides and keeps.

        Args:
            provider: the lookup path from a row to the provider of its calendar.
        """
        return models.Q(**{provider: self}) if self.is_keeper else models.Q(pk__in=[])

    def clean(self) -> None:
        """Replace the email address with its canonical spelling.

        Django calls this even if the address is invalid; `validate_spelling` then reports it.
        """
        self.email = lookup_form(self.email)


def keeps_own(alias: str) -> str:
    """Return the SQL condition that a user keeps the calendars that they provide.

    Args:
        alias: the name under which the statement joins `accounts_user`.
    """
    roles = ", ".join(f"'{role}'" for role in User.KEEPERS)
    return f"({alias}.is_active AND {alias}.role IN ({roles}))"


def has_verified_address(alias: str) -> str:
    """Return the SQL condition that a user's email address is verified.

    Only a token that was sent to an email address verifies it. Neither registering nor a role does.

    Args:
        alias: the name under which the statement joins `accounts_user`.
    """
    return f"{alias}.email_verified"
