"""Permissions on reviews."""

from django.utils.translation import gettext_lazy as _

from accounts.extensions import PERMISSIONS, Permission

for name, permission in {
    "reviews.view_review": Permission(_("see reviews in the admin site")),
    "reviews.add_review": Permission(_("write reviews"), own="user", in_roles=False),
    "reviews.change_review": Permission(_("change reviews"), own="user", in_roles=False),
    "reviews.delete_review": Permission(_("delete all reviews"), own="user"),
}.items():
    PERMISSIONS.add(name)(permission)
