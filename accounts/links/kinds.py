"""The kinds of emails about accounts: what they say, and how long their links are valid.

The texts contain nothing that a user wrote, because anybody can register with another person's
email address.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.utils.translation import gettext_lazy as _


@dataclass(frozen=True)
class Kind:
    """A kind of email about an account.

    Args:
        name: identifies the kind in jobs, limits and links.
        subject: the subject, which is also the heading.
        lead: the first paragraph: what has happened, and what the reader can do.
        note: the last paragraph: what to do if the email is unexpected.
        setting: the name of the setting with the URL of the link; empty if the email has no link.
        action: the label of the link.
        lifetime: how long the link is valid. `lead` says it in words.
    """

    name: str
    subject: Any
    lead: Any
    note: Any
    setting: str = ""
    action: Any = ""
    lifetime: timedelta = timedelta()


PASSWORD_RESET = Kind(
    name="password_reset",
    subject=_("Reset your password"),
    lead=_(
        "Somebody asked to reset the password of your account. If it was you, choose a new "
        "password within an hour."
    ),
    note=_("If it was not you, you can ignore this email. Your password has not changed."),
    setting="PASSWORD_RESET_URL",
    action=_("Choose a password"),
    lifetime=timedelta(hours=1),
)
INVITATION = Kind(
    name="invitation",
    subject=_("Set your password"),
    lead=_("An account has been created for you. Choose a password within 7 days to sign in."),
    note=_("If you did not expect an account, you can ignore this email."),
    setting="PASSWORD_RESET_URL",
    action=_("Choose a password"),
    lifetime=timedelta(days=7),
)
VERIFICATION = Kind(
    name="verification",
    subject=_("Verify your email address"),
    lead=_("Verify within 3 days that this is the email address of your account."),
    note=_(
        "You receive this email because somebody gave this address for an account. If it was not "
        "you, you can ignore this email."
    ),
    setting="VERIFY_EMAIL_URL",
    action=_("Verify the address"),
    lifetime=timedelta(days=3),
)
CHANGE_REQUESTED = Kind(
    name="change_requested",
    subject=_("Your email address is about to change"),
    lead=_(
        "Somebody who knows your password asked to change the email address of your account. It "
        "changes once the new address is verified."
    ),
    note=_("If it was not you, change your password now. This also cancels the change."),
)
EMAIL_CHANGED = Kind(
    name="email_changed",
    subject=_("Your email address has changed"),
    lead=_(
        "The email address of your account has changed. You now sign in with the new address, and "
        "this address receives no more emails about the account."
    ),
    note=_("If it was not you, contact the operator of this service."),
)
KEY_CREATED = Kind(
    name="key_created",
    subject=_("An API key was created"),
    lead=_(
        "An API key was created for your account. A program that has the key can act for you until "
        "the key expires or is deleted."
    ),
    note=_("If it was not you, change your password now, and then delete the key."),
)

KINDS = {
    kind.name: kind
    for kind in (
        PASSWORD_RESET,
        INVITATION,
        VERIFICATION,
        CHANGE_REQUESTED,
        EMAIL_CHANGED,
        KEY_CREATED,
    )
}
