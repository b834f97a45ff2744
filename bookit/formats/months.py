"""The names of the months.

Django's Portuguese names begin with a capital letter, as was usual before the spelling reform of
1990. BookIt's catalogues take precedence over Django's, so these entries replace Django's names.
Only `makemessages` reads this list.
"""

from django.utils.translation import gettext_noop

MONTHS = [
    gettext_noop("January"),
    gettext_noop("February"),
    gettext_noop("March"),
    gettext_noop("April"),
    gettext_noop("May"),
    gettext_noop("June"),
    gettext_noop("July"),
    gettext_noop("August"),
    gettext_noop("September"),
    gettext_noop("October"),
    gettext_noop("November"),
    gettext_noop("December"),
]
