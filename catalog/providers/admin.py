"""The profiles of providers in the admin site."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Q
from django.http import HttpRequest
from django.utils.text import Truncator
from django.utils.translation import gettext_lazy as _

from accounts.models import User
from bookit.adminsite.cells import person
from bookit.adminsite.menu import Menu
from bookit.adminsite.pages import StrictAdmin
from bookit.adminsite.search import all_in
from catalog.providers.models import Profile


class ProfileForm(forms.ModelForm):
    """The form of a profile."""

    class Meta:
        labels = {
            "user": _("Provider"),
            "biography": _("Biography"),
            "picture_url": _("Address of the picture"),
        }
        help_texts = {
            "biography": _("Everybody can read it."),
            "picture_url": _(
                "It begins with https://. Browsers load the picture from there, because BookIt does"
                " not store it."
            ),
        }
        widgets = {
            "biography": forms.Textarea(attrs={"rows": 8}),
            "picture_url": forms.URLInput(attrs={"class": "vURLField"}),
        }


@admin.register(Profile)
class ProfileAdmin(StrictAdmin):
    """The list and the pages of profiles. Admins can correct or clear a profile there."""

    menu = Menu.PEOPLE
    form = ProfileForm

    class Media:
        css = {"all": ["bookit/forms.css"]}

    list_title = _("Provider profiles")
    list_display = ["who", "about", "picture_url"]
    csv_columns = ["user", "biography", "picture_url"]
    list_select_related = ["user"]
    list_filter = ["user__role"]
    ordering = ["-user_id"]
    search_fields = ["user__name", "user__email", "biography"]
    autocomplete_fields = ["user"]
    fields = ["user", "biography", "picture_url"]

    def search_conditions(self, request: HttpRequest, words: str) -> list[Q]:
        """Return conditions on the provider and on the biography."""
        people = User.objects.filter(all_in(words, ["name", "email"]))
        return [Q(user__in=people.values("pk")), all_in(words, ["biography"])]

    @admin.display(description=_("provider"), ordering="user__name")
    def who(self, profile: Profile) -> Any:
        """Return the name and the email address of the provider."""
        return person(profile.user)

    @admin.display(description=_("about"), ordering="biography")
    def about(self, profile: Profile) -> str:
        """Return the beginning of the biography."""
        return Truncator(profile.biography).words(20)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Make the user of an existing profile read-only: a profile stays with its user."""
        return ["user"] if obj else []
