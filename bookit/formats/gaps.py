"""Texts of Django and DRF that lack a translation into one of BookIt's languages.

BookIt's catalogues take precedence over those of Django and DRF, so these entries fill the gaps.
Only texts that clients of the API can get are listed.
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
]
