"""Texts of Django and DRF that lack a suitable translation into one of BookIt's languages.

BookIt's catalogues take precedence over those of Django and DRF, so these entries fill the gaps.
The list has only those texts that clients of the API or users of the admin site can get.
No code uses the list: `makemessages` finds its entries.
"""

from django.utils.translation import gettext_noop, ngettext_lazy

TEXTS = [
    gettext_noop("Ensure this field has at least {min_length} elements."),
    gettext_noop("Ensure this field has no more than {max_length} elements."),
    gettext_noop("Must be a valid UUID."),
    gettext_noop("Must be a valid boolean."),
    ngettext_lazy(
        "This password is too short. It must contain at least %d character.",
        "This password is too short. It must contain at least %d characters.",
    ),
    # In Django's Russian texts, the name of a model is in the wrong grammatical case, or the words
    # have the wrong gender.
    gettext_noop("Add %s"),
    gettext_noop("Change %s"),
    gettext_noop("View %s"),
    gettext_noop("The {name} “{obj}” was added successfully."),
    gettext_noop("The {name} “{obj}” was added successfully. You may add another {name} below."),
    gettext_noop("The {name} “{obj}” was changed successfully."),
    gettext_noop("The {name} “{obj}” was changed successfully. You may add another {name} below."),
    gettext_noop("The {name} “{obj}” was changed successfully. You may edit it again below."),
    gettext_noop("The %(name)s “%(obj)s” was deleted successfully."),
    # In German, Django leaves most of the texts about accounts and passwords in English.
    gettext_noop("After you’ve created a user, you’ll be able to edit more user options."),  # noqa: RUF001
    gettext_noop("Reset password"),
    gettext_noop("Set password"),
    gettext_noop("Set password: %s"),
    gettext_noop("Password-based authentication"),
    gettext_noop("Enabled"),
    gettext_noop("Disabled"),
    gettext_noop("Enable password-based authentication"),
    gettext_noop("Disable password-based authentication"),
    gettext_noop("Enable password-based authentication for this user by setting a password."),
    gettext_noop(
        "This action will <strong>enable</strong> password-based authentication for this user."
    ),
    gettext_noop("Password-based authentication was disabled."),
    gettext_noop("Conflicting form data submitted. Please try again."),
    # In German, Django calls saving "Sichern". BookIt calls it "Speichern", as browsers do.
    gettext_noop("Save and add another"),
    gettext_noop("Save and continue editing"),
    # Django's translations of this text are too long for the field above the menu, and one of them
    # is misspelt.
    gettext_noop("Start typing to filter…"),
]
