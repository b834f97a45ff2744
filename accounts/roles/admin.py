"""Staff roles in the admin site."""

from typing import Any

from django import forms
from django.apps import apps
from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from accounts.extensions import PERMISSIONS
from accounts.roles import services as roles
from accounts.roles.models import Role
from bookit.adminsite.fields import GroupedCheckboxes
from bookit.adminsite.menu import Menu
from bookit.adminsite.pages import ServedAdmin


def _permissions() -> list[Any]:
    """Return choices for the permissions that a role can contain, grouped by app."""
    groups: dict[Any, list[tuple[str, Any]]] = {}
    for name, each in sorted(PERMISSIONS.items()):
        if each.in_roles:
            words = format_html("<span>{} <code>{}</code></span>", capfirst(each.words), name)
            app = apps.get_app_config(name.partition(".")[0])
            groups.setdefault(app.verbose_name, []).append((name, words))
    return [*groups.items()]


class RoleForm(forms.ModelForm):
    """The form for a role, with the permissions that a role can contain."""

    name = forms.CharField(
        max_length=150,
        label=pgettext_lazy("thing", "Name"),
        help_text=_("For example, “Reception”."),
    )
    permissions = forms.MultipleChoiceField(
        choices=_permissions,
        widget=GroupedCheckboxes,
        required=False,
        label=_("What its holders may do"),
        help_text=_("You can give and take away only permissions that you have yourself."),
    )

    class Meta:
        model = Role
        fields = ["description"]
        labels = {"description": _("Description")}
        help_texts = {"description": _("For people who give this role to others.")}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.group_id:
            self.initial["name"] = self.instance.name
            self.initial["permissions"] = self.instance.permissions


@admin.register(Role)
class RoleAdmin(ServedAdmin):
    """The admin pages of roles. The services check which permissions may be given."""

    menu = Menu.PEOPLE
    form = RoleForm
    list_display = ["name", "description", "created_at"]
    list_filter = ["created_at"]
    list_select_related = ["group"]
    search_fields = ["group__name", "description"]
    ordering = ["id"]
    fields = ["name", "description", "permissions"]
    has_form = True

    class Media:
        css = {"all": ["bookit/forms.css"]}

    @admin.display(description=pgettext_lazy("thing", "Name"), ordering="group__name")
    def name(self, role: Role) -> str:
        """Return the name of the role."""
        return role.name

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may create roles."""
        return request.user.has_perm("accounts.add_role")

    def save_model(self, request: HttpRequest, obj: Role, form: Any, change: bool) -> None:
        """Save the role through the services, which enforce the rules."""
        actor: Any = request.user
        if change:
            changes = {name: form.cleaned_data[name] for name in form.changed_data}
            roles.update_role(role_id=obj.pk, actor=actor, changes=changes)
            return
        stored = roles.create_role(actor=actor, at=timezone.now(), **form.cleaned_data)
        # Django names `obj` in its message and its log entry, so set the stored id and group.
        obj.pk, obj.group = stored.pk, stored.group

    def delete_row(self, request: HttpRequest, row: Role) -> None:
        """Delete the role through the services, which enforce the rules."""
        roles.delete_role(role_id=row.pk, actor=request.user)  # type: ignore[arg-type]
