"""Accounts in the admin site."""

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.forms import AdminPasswordChangeForm as AdminOwnPasswordForm
from django.contrib.admin.utils import unquote
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.forms import (
    AdminPasswordChangeForm,
    BaseUserCreationForm,
    ReadOnlyPasswordHashField,
    ReadOnlyPasswordHashWidget,
)
from django.contrib.auth.forms import UserChangeForm as DjangoUserChangeForm
from django.contrib.auth.hashers import is_password_usable
from django.contrib.auth.models import Group
from django.contrib.auth.views import PasswordChangeView
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts import services
from accounts.keys import admin as keys  # noqa: F401 - the import registers its pages
from accounts.models import User
from accounts.roles import admin as roles  # noqa: F401 - the import registers its pages
from accounts.sessions import admin as sessions  # noqa: F401 - the import registers its pages
from accounts.sessions.clients import client_of
from bookit.adminsite.cells import badge, exactly, moment
from bookit.adminsite.fields import GroupedCheckboxes
from bookit.adminsite.links import list_of
from bookit.adminsite.menu import Menu
from bookit.adminsite.pages import StrictAdmin, is_id
from bookit.adminsite.refusals import GONE, Refused, message_of
from bookit.adminsite.search import all_in
from bookit.errors import Invalid

ROLES = _(
    "Users book for themselves. Providers also manage their own calendars. Admins may do"
    " everything."
)


class UserCreationForm(BaseUserCreationForm):
    """The form for a new account with a password."""

    class Meta:
        model = User
        fields = ["email", "name", "role"]
        labels = {"name": _("Name"), "role": _("Role")}
        help_texts = {"role": ROLES}


class PasswordWidget(ReadOnlyPasswordHashWidget):
    """Says whether a password is set, and has a button for users who may set one.

    Django's own widget also shows the first characters of the hash.
    """

    template_name = "bookit/password_widget.html"
    may_set = False

    def get_context(self, name: str, value: Any, attrs: Any) -> dict[str, Any]:
        """Return the context of the template, without the password hash."""
        usable = value and is_password_usable(value)
        return {
            **super().get_context(name, None, attrs),
            "summary": gettext("A password is set.") if usable else gettext("No password is set."),
            "button_label": super().get_context(name, value, attrs)["button_label"],
            "may_set": self.may_set,
        }


class UserChangeForm(DjangoUserChangeForm):
    """The form for an existing account, without the password hash."""

    password = ReadOnlyPasswordHashField(label=_("Password"), widget=PasswordWidget)
    roles = forms.ModelMultipleChoiceField(
        Group.objects.order_by("name"),
        to_field_name="name",
        widget=GroupedCheckboxes,
        required=False,
        label=_("Staff roles"),
        help_text=_("You can give and take away only permissions that you have yourself."),
    )

    class Meta(DjangoUserChangeForm.Meta):
        labels = {
            "name": _("Name"),
            "role": _("Role"),
            "phone": _("Phone"),
            "timezone": _("Time zone"),
            "is_active": _("May sign in"),
        }
        help_texts = {
            "role": ROLES,
            "timezone": _("Times in emails and on pages are in this zone."),
            "is_active": _(
                "If this is off, the user is signed out at once and cannot sign in. Customers can"
                " still book a provider\u2019s services, unless you deactivate the services, too."
            ),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["roles"] = self.instance.roles
        # For users who may only view the page, the form has only the fields declared above.
        if "language" in self.fields:
            # A program may have stored a tag that is not in `LANGUAGES`, such as `pt-BR`.
            tag = self.instance.language
            self.fields["language"] = forms.ChoiceField(
                choices={tag: tag, **dict(settings.LANGUAGES)},
                label=_("Language"),
                help_text=_("Emails and the admin site are in this language."),
            )

    def clean_roles(self) -> list[str]:
        """Return the names of the chosen roles."""
        return [group.name for group in self.cleaned_data["roles"]]


class PasswordForm(AdminPasswordChangeForm):
    """The form for a new password of another user.

    Django's own help text is always in English, because it is built while a module is imported.
    """

    @property
    def usable_password_help_text(self) -> Any:  # type: ignore[override]
        """The translated help text, with the warning that Django's script shows and hides."""
        return format_html(
            '{}<ul id="id_unusable_warning" class="messagelist"><li class="warning">{}</li></ul>',
            gettext("Without a password, the user cannot sign in."),
            gettext("The current password will be lost."),
        )

    def save(self, commit: bool = True) -> User:
        """Save the password, and no other field, because somebody may have changed the others.

        Raises:
            Refused: the account was deleted in the meantime.
        """
        user: User = super().save(commit=False)
        if not User.objects.filter(pk=user.pk, deleted_at=None).update(password=user.password):
            raise Refused(GONE)
        return user


class OwnPasswordForm(AdminOwnPasswordForm):
    """The form with which users change their own password. Its view checks the old password."""

    def clean_old_password(self) -> str:
        """Return the old password."""
        password: str = self.cleaned_data["old_password"]
        return password


class OwnPasswordView(PasswordChangeView):
    """Changes the password of the signed-in user by the rules of the API.

    Django does not limit wrong passwords, and saves the whole row of the user, with fields that
    somebody may have changed since it was read.
    """

    form_class = OwnPasswordForm

    def form_valid(self, form: Any) -> HttpResponse:
        """Change the password, or show why it is refused.

        Raises:
            LimitExceeded: too many wrong passwords were tried.
        """
        user: Any = self.request.user
        try:
            hashed = services.hash_new_password(
                user=user,
                current_password=form.cleaned_data["old_password"],
                new_password=form.cleaned_data["new_password1"],
                client=client_of(self.request),
            )
            # When the password changes, a trigger ends all sessions of the user. Only in the same
            # transaction can `update_session_auth_hash` restore this one; see `SessionStore`.
            with transaction.atomic():
                services.replace_password(user=user, hashed=hashed)
                user.password = hashed
                update_session_auth_hash(self.request, user)
        except Invalid as error:
            # The names of fields in the API, and in Django's form.
            names = {"current_password": "old_password", "new_password": "new_password1"}
            for field, texts in error.errors.items():
                form.add_error(names[field], texts)
            return self.form_invalid(form)
        return HttpResponseRedirect(self.get_success_url())


admin.site.password_change_view = OwnPasswordView  # type: ignore[attr-defined]

# Every group belongs to a staff role. The admin pages of roles (`accounts.roles.admin`) replace
# Django's pages of groups.
admin.site.unregister(Group)


@admin.register(User)
class UserAdmin(StrictAdmin, DjangoUserAdmin):
    """The admin pages of accounts."""

    menu = Menu.PEOPLE
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = PasswordForm
    list_display = ["who", "kind", "state", "created", "seen"]
    list_display_links = ["who"]
    list_filter = ["role", "is_active", "created_at"]
    csv_columns = [
        *("name", "address", "email_verified", "phone", "role", "staff_roles", "is_active"),
        *("timezone", "language", "created_at", "last_login"),
    ]
    search_fields = ["email", "name", "id"]
    ordering = ["-created_at"]
    date_hierarchy = "created_at"
    readonly_fields = ["id", "email_state", "registered", "last_sign_in"]
    filter_horizontal = []
    fieldsets = [
        (None, {"fields": ["name", "email", "email_state", "phone"]}),
        (_("Signing in"), {"fields": ["password", "is_active"]}),
        (_("Rights"), {"fields": ["role", "roles"]}),
        (_("Preferences"), {"fields": ["timezone", "language"]}),
        (_("Record"), {"fields": ["id", "registered", "last_sign_in"], "classes": ["record"]}),
    ]
    add_fieldsets = [(None, {"fields": ["email", "name", "role", "password1", "password2"]})]

    class Media:
        css = {"all": ["bookit/operator.css", "bookit/forms.css"]}

    @admin.display(description=_("Email address verified"))
    def email_state(self, user: User) -> Any:
        """Return whether the email address is verified, and the address that is to replace it."""
        words = gettext("yes") if user.email_verified else gettext("not yet")
        if not user.new_email:
            return words
        return gettext("%(state)s; the user wants to change it to %(email)s") % {
            "state": words,
            "email": user.new_email,
        }

    @admin.display(description=_("Staff roles"))
    def roles(self, user: User) -> str:
        """Return the names of the staff roles, for users who may not change them."""
        return ", ".join(user.roles) or self.get_empty_value_display()

    @admin.display(description=_("Registered"))
    def registered(self, user: User) -> Any:
        """Return when the account was created, in the zone of its user."""
        return exactly(user.created_at, user.timezone)

    @admin.display(description=_("Last sign-in"))
    def last_sign_in(self, user: User) -> Any:
        """Return when the user last signed in, in their zone."""
        return exactly(user.last_login, user.timezone) or gettext("never")

    @admin.display(description=_("Account"))
    def who(self, user: User) -> Any:
        """Return the name and the email address."""
        email = user.mailbox or _("no email address")
        more = "" if user.email_verified or not user.mailbox else _("not verified")
        return format_html('{}<span class="quiet">{} {}</span>', user.name or "—", email, more)

    @admin.display(description=_("Role"))
    def kind(self, user: User) -> Any:
        """Return the role and the staff roles."""
        words = user.get_role_display()
        return format_html('{}<span class="quiet">{}</span>', words, self.staff_roles(user))

    @admin.display(description=_("Staff roles"))
    def staff_roles(self, user: User) -> str:
        """Return the names of the staff roles, without a query for each account."""
        return ", ".join(sorted(group.name for group in user.groups.all()))

    @admin.display(description=_("Email address"))
    def address(self, user: User) -> str:
        """Return the email address; nothing if the user has none."""
        return user.mailbox

    @admin.display(description=_("State"))
    def state(self, user: User) -> Any:
        """Return whether the user can sign in."""
        return badge("active", _("active")) if user.is_active else badge("off", _("inactive"))

    @admin.display(description=_("Registered"), ordering="created_at")
    def created(self, user: User) -> Any:
        """Return when the account was created."""
        return moment(user.created_at)

    @admin.display(description=_("Last sign-in"))
    def seen(self, user: User) -> Any:
        """Return when the user last signed in."""
        return moment(user.last_login) or _("never")

    def search_conditions(self, request: HttpRequest, words: str) -> list[Q]:
        """Return the condition on the name and the email address; none if the words are an id.

        Without a condition, the search finds the account by its id. Otherwise, an index first finds
        the accounts. If they are few, the list and the dates above it read only these accounts.
        """
        return [] if is_id(words) else [all_in(words, ["name", "email"])]

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        """Return the accounts that have not been deleted, with their staff roles."""
        users = super().get_queryset(request).filter(deleted_at=None)
        return users.prefetch_related("groups")

    def has_view_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Return whether the user may see an account. Nobody sees the account of a former user."""
        is_gone = obj is not None and obj.deleted_at is not None
        return not is_gone and super().has_view_permission(request, obj)

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: User | None = None,
    ) -> Any:
        """Show the page of an account. Only admins see the button that sets a password."""
        if not add:
            fields = context["adminform"].form.fields
            fields["password"].widget.may_set = request.user.is_superuser
        return super().render_change_form(request, context, add, change, form_url, obj)

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        """Save the account through the services, which enforce the rules."""
        actor: User = request.user  # type: ignore[assignment]
        if not change:
            # A colleague is more likely to live in the zone of the admin than in UTC.
            obj.timezone = actor.timezone
            services.add_user(user=obj, actor=actor, at=timezone.now())
            return
        if form.changed_data:
            services.update_user(
                user_id=obj.pk,
                actor=actor,
                changes={
                    name: form.cleaned_data[name] if name == "roles" else getattr(obj, name)
                    for name in form.changed_data
                },
                at=timezone.now(),
            )

    def user_change_password(
        self,
        request: HttpRequest,
        id: str,  # noqa: A002 - Django passes `id` by name
        form_url: str = "",
    ) -> Any:
        """Show the form for a new password, but only to admins.

        A person who sets the password of a user can sign in as that user. The form for one's own
        password is another one, which asks for the current password.

        Raises:
            PermissionDenied: the signed-in user is not an admin.
        """
        if not request.user.is_superuser:
            raise PermissionDenied
        if self.get_object(request, unquote(id)) == request.user:
            return HttpResponseRedirect(reverse("admin:password_change"))
        try:
            return super().user_change_password(request, id, form_url)
        except Refused as error:
            self.message_user(request, message_of(error), messages.ERROR)
            return HttpResponseRedirect(list_of(User))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: accounts are deactivated here, and deleted with the API."""
        return False
