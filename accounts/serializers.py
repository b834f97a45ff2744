"""The bodies of requests and responses about accounts."""

from functools import partial
from typing import Any

from rest_framework import serializers

from accounts.emails import canonical, mailbox
from accounts.models import User, validate_language, validate_phone
from accounts.roles.models import role_names
from bookit.api.metadata import MetadataField
from bookit.api.schema import example
from bookit.api.serializers import ListField, RowSerializer, StrictSerializer
from bookit.times import validate_zone

ANA = {
    "id": "0199d3a1-7c1e-7f61-b2ab-0a1c5d3f9e10",
    "name": "Ana Silva",
    "email": "ana@example.com",
    "email_verified": True,
    "phone": "+351 912 345 678",
    "role": "user",
    "roles": [],
    "timezone": "Europe/Lisbon",
    "language": "pt",
    "is_active": True,
    "metadata": {"crm_id": "4711"},
    "created_at": "2026-11-21T09:00:00Z",
    "updated_at": "2026-11-21T09:00:00Z",
}


# An email address in a response. The OpenAPI document calls it a string without a format, because
# strict clients refuse the domain `.invalid` of accounts without an address.
ShownEmailField = partial(serializers.CharField, read_only=True)


@example("A user", ANA)
class UserSerializer(RowSerializer):
    """An account."""

    email = ShownEmailField()
    metadata = MetadataField(read_only=True)
    roles = serializers.ListField(
        child=serializers.CharField(),
        read_only=True,
        help_text="The names of the user's staff roles.",
    )

    annotations = {"roles": role_names("pk")}

    class Meta:
        model = User
        fields = [
            *("id", "name", "email", "email_verified", "phone", "role", "roles"),
            *("timezone", "language", "is_active", "metadata", "created_at", "updated_at"),
        ]
        read_only_fields = fields


# Passwords are taken exactly as they were typed. The services check the strength of new passwords.
PasswordField = partial(
    serializers.CharField, write_only=True, trim_whitespace=False, max_length=128
)
# An email address with which an account is looked up. The format is not checked: a malformed email
# address is treated like an unknown one.
LookupField = partial(serializers.CharField, max_length=254)
NameField = partial(serializers.CharField, max_length=200)
# A phone number for people to dial. It is empty if the user has none.
PhoneField = partial(
    serializers.CharField, max_length=32, allow_blank=True, validators=[validate_phone]
)
# The language of emails and of the admin site, as a BCP 47 tag such as `pt-BR`.
LanguageField = partial(serializers.CharField, max_length=35, validators=[validate_language])
ZoneField = partial(serializers.CharField, max_length=64, validators=[validate_zone])
# A token from an email.
TokenField = partial(serializers.CharField, max_length=200)


class EmailAddressField(serializers.EmailField):
    """An email address in its canonical spelling; see `accounts.emails`.

    Addresses that no mailbox can have are refused.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"max_length": 254, **kwargs})

    def run_validation(self, data: Any = serializers.empty) -> Any:
        """Return the canonical spelling of the email address."""
        address = super().run_validation(data)
        if address and not mailbox(canonical(address)):
            self.fail("invalid")
        return canonical(address) if address else address


@example(
    "Ana registers",
    {
        "name": "Ana Silva",
        "email": "ana@example.com",
        "password": "seven quiet otters",
        "timezone": "Europe/Lisbon",
    },
)
class RegisterSerializer(StrictSerializer):
    """The data of a new account."""

    # A client may send back an account that it has read. Its other fields are ignored.
    ignored = frozenset(UserSerializer.Meta.fields)

    name = NameField()
    email = EmailAddressField()
    password = PasswordField()
    phone = PhoneField(required=False)
    timezone = ZoneField(default="UTC")
    language = LanguageField(required=False)
    metadata = MetadataField()


@example("Ana moves", {"timezone": "America/Sao_Paulo"})
class ProfileSerializer(StrictSerializer):
    """Changes to your own account."""

    ignored = frozenset(UserSerializer.Meta.fields)

    name = NameField(required=False)
    email = EmailAddressField(
        required=False,
        help_text=(
            "A new address requires `current_password` and takes effect once it is verified."
        ),
    )
    current_password = PasswordField(required=False)
    phone = PhoneField(required=False)
    timezone = ZoneField(required=False)
    language = LanguageField(required=False)
    metadata = MetadataField()


@example(
    "A new password",
    {"current_password": "seven quiet otters", "new_password": "eight quiet otters"},
)
class PasswordChangeSerializer(StrictSerializer):
    """The current password and the new one."""

    current_password = PasswordField()
    new_password = PasswordField()


@example("Ana has forgotten her password", {"email": "ana@example.com"})
class PasswordResetSerializer(StrictSerializer):
    """The email address of an account."""

    email = LookupField()


@example(
    "Ana sets a new password",
    {
        "token": "mF_9.B5f-4.1JqM0bY3v7Qn2zXcW8dKsLhRtPaUeGiO",
        "password": "nine quiet otters",
    },
)
class PasswordResetConfirmSerializer(StrictSerializer):
    """The token from an email, and the new password."""

    token = TokenField()
    password = PasswordField()


@example("Ana verifies her address", {"token": "mF_9.B5f-4.1JqM0bY3v7Qn2zXcW8dKsLhRtPaUeGiO"})
class VerifyEmailSerializer(StrictSerializer):
    """The token from an email."""

    token = TokenField()


@example("Ana deletes her account", {"password": "seven quiet otters"})
class OwnPasswordSerializer(StrictSerializer):
    """The user's password, to confirm an action that cannot be undone."""

    password = PasswordField()


@example("A new receptionist", {"name": "Rui Costa", "email": "rui@example.com"})
class UserCreateSerializer(StrictSerializer):
    """The data of an account that an admin creates."""

    ignored = frozenset(UserSerializer.Meta.fields)

    name = NameField()
    email = EmailAddressField()
    role = serializers.ChoiceField(User.Role.choices, required=False)
    phone = PhoneField(required=False)
    timezone = ZoneField(required=False)
    language = LanguageField(required=False)
    metadata = MetadataField()


@example("Ana becomes a provider", {"role": "provider"})
class UserChangeSerializer(StrictSerializer):
    """Changes to an account by an admin or by staff."""

    ignored = frozenset(UserSerializer.Meta.fields)

    name = NameField(required=False)
    roles = ListField(
        child=serializers.CharField(max_length=150),
        required=False,
        max_length=100,
        help_text="All staff roles of the user, by name. Others are removed.",
    )
    role = serializers.ChoiceField(User.Role.choices, required=False)
    is_active = serializers.BooleanField(required=False)
    metadata = MetadataField()
