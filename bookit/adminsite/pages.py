"""Base classes for model admins."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import IS_POPUP_VAR
from django.contrib.admin.templatetags.admin_urls import admin_urlname
from django.contrib.admin.utils import get_fields_from_path
from django.contrib.admin.widgets import AutocompleteSelect, RelatedFieldWidgetWrapper
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import DatabaseError, Error, transaction
from django.db.models import (
    DateTimeField,
    Field,
    IntegerField,
    Model,
    Q,
    QuerySet,
    TextField,
    UUIDField,
)
from django.db.models.constants import LOOKUP_SEP
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    QueryDict,
    StreamingHttpResponse,
)
from django.template.response import TemplateResponse
from django.urls import path as url
from django.urls import reverse
from django.utils import timezone
from django.utils.http import content_disposition_header
from django.utils.text import capfirst, smart_split, unescape_string_literal
from django.utils.translation import gettext, gettext_lazy, ngettext, ngettext_lazy
from django.views.decorators.http import require_safe

from bookit import deadlines
from bookit.adminsite.changelist import BoundedPaginator, SenselessList, StrictChangeList
from bookit.adminsite.exports import CHUNK, CSV, Format
from bookit.adminsite.fields import LinesField, zone_field
from bookit.adminsite.links import list_of
from bookit.adminsite.menu import Menu
from bookit.adminsite.refusals import (
    GONE,
    REFERENCED,
    REFUSALS,
    Refused,
    message_of,
    messages_of,
)
from bookit.adminsite.search import contains, found_in
from bookit.adminsite.stale import noticing
from bookit.database.references import delete_unreferenced, is_referenced
from bookit.errors import is_database_unavailable
from bookit.languages import grouped
from bookit.times import validate_zone

# The lookups that Django's filters append to the name of a field in their links.
FILTER_LOOKUPS = ["", "exact", "isnull", "gte", "lt"]
# The lookups that a date hierarchy appends to the name of its field.
DATE_LOOKUPS = ["year", "month", "day"]
# An action accepts at most this many rows, because it holds all of them in memory and changes them
# one by one. The page that asks before a deletion sends each row as a form field. Django accepts at
# most 1,000 fields, so this number leaves room for all other fields.
MAX_ROWS = 900
# The message about rows that an action has changed.
CHANGED = ngettext_lazy("%d changed.", "%d changed.")
# An autocomplete field contains at most this many rows, for browsers without scripts.
FIRST = 100
# Fields that identify a row. If a list searches them through a relation, the help text of its
# search box names the relation: "service", not "title".
OWN_NAMES = {"id", "name", "title"}
# A message about refused rows names at most this many of them.
NAMED = 5
# A page that asks before an action changes rows names at most this many of them.
ASKED = 20


def _is_value_of(field: "Field[Any, Any]", value: str) -> bool:
    """Return whether `value` can be a value of `field`; "abc", for example, cannot be a UUID."""
    try:
        field.to_python(value)
    except ValidationError:
        return False
    return "\0" not in value


def is_id(text: str) -> bool:
    """Return whether `text` can be the id of a row."""
    return _is_value_of(UUIDField(), text.strip())


def _without_page(query: QueryDict) -> QueryDict:
    """Return the query of a list without the parameters for pages: `p` and `all`."""
    query = query.copy()
    for name in ("p", "all"):
        query.pop(name, None)
    return query


class StrictAutocomplete(AutocompleteSelect):
    """Django's autocomplete field, except that a value that is not an id raises no error.

    Browsers without scripts cannot search, so the field also contains the first rows as options.

    Args:
        first: the number of these options. It must be 0 if the user may not choose the rows.
    """

    def __init__(self, *args: Any, first: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.first = first

    @property
    def media(self) -> forms.Media:
        """Return the field's media, with the script that labels it for screen readers."""
        return super().media + forms.Media(js=["bookit/autocomplete.js"])

    def optgroups(self, name: str, value: Sequence[str], attr: Any = None) -> Any:
        """Return the selected options, followed by the first other rows.

        Values that cannot be ids are left out.
        """
        key = self.field.remote_field.model._meta.pk
        groups = super().optgroups(name, [each for each in value if _is_value_of(key, each)], attr)
        if self.first:
            options = groups[0][1]
            chosen = {str(each["value"]) for each in options}
            if not chosen:
                # Without an empty option, the browser would select the first row.
                options.append(self.create_option(name, "", "", selected=False, index=0))
            choices: Any = self.choices
            for row in choices.queryset[: self.first]:
                if str(row.pk) not in chosen:
                    label = choices.field.label_from_instance(row)
                    options.append(
                        self.create_option(name, row.pk, label, selected=False, index=len(options))
                    )
        return groups


class StrictAdmin(admin.ModelAdmin):
    """Admin pages that trust neither URLs nor forms, and explain what they refuse.

    A list can be filtered only by the filters and the date hierarchy that it shows, and by its
    `link_filters`. Django lets a URL filter by any field of the model, even by a hidden field.
    Without this restriction, a secret could be discovered letter by letter from the number of rows
    that `?secret__startswith=a` finds.
    """

    # The part of the menu that contains the list; None if the menu leaves it out.
    menu: Menu | None = Menu.SYSTEM
    # The title of the list, which is also its name in the menu.
    list_title: Any = ""
    # Parameters by which links of other pages filter the list, in addition to its own filters.
    link_filters: Sequence[str] = ()
    # If this were True, Django would count the rows twice, with and without filters.
    show_full_result_count = False
    paginator = BoundedPaginator
    formfield_overrides: ClassVar[Mapping[Any, Any]] = {TextField: {"form_class": LinesField}}
    # By default, `?_facets` counts all rows once for each choice of each filter.
    show_facets = admin.ShowFacets.NEVER
    # The formats in which users can download the rows of the list, by file extension.
    formats: ClassVar[Mapping[str, Format]] = {"csv": CSV}
    # The columns of a CSV file after the id. If this is empty, they are the columns of the list.
    csv_columns: ClassVar[Sequence[str]] = ()
    delete_confirmation_template = "bookit/delete.html"
    # The text of the link and of the button that delete a row.
    delete_words: Any = gettext_lazy("Delete")
    # The warning on the page that asks whether to delete a row.
    delete_note: Any = ""
    # If other rows restrict the deletion of the row, that page shows this text and does not ask.
    in_use: Any = REFERENCED
    # Whether anybody may know the names of the rows, because the API shows them to everybody.
    has_public_names = False

    def heading(self, row: Any) -> Any:
        """Return the name of a row, as its page and the pages about it show it."""
        return str(row)

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Return the list. The help text of its search box says what it searches."""
        changes: Any = super().get_changelist_instance(request)
        changes.search_help_text = self.search_help_text or self._searched(request)
        return changes

    def _searched(self, request: HttpRequest) -> str:
        """Return the names of the searched fields: "Email address, name, id"."""
        names = []
        for path in self.get_search_fields(request):
            *relations, field = get_fields_from_path(self.model, path)
            # A user searches for a service, not for the title of a service.
            named = relations[-1] if relations and field.name in OWN_NAMES else field
            names.append(str(getattr(named, "verbose_name", named.name)))
        return capfirst(", ".join(dict.fromkeys(names)))

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Return whether a URL parameter is one by which the list can be filtered."""
        return lookup in self._filter_parameters(request)

    def _filter_parameters(self, request: Any) -> set[str]:
        names = {*self.link_filters}
        for item in self.get_list_filter(request):
            if isinstance(item, type):
                names.add(item.parameter_name)  # type: ignore[attr-defined]
                continue
            path = str(item[0] if isinstance(item, tuple) else item)
            field: Any = get_fields_from_path(self.model, path)[-1]
            if field.is_relation:
                path = LOOKUP_SEP.join([path, field.target_field.name])
            names |= {LOOKUP_SEP.join([path, each]) if each else path for each in FILTER_LOOKUPS}
        if self.date_hierarchy:
            names |= {LOOKUP_SEP.join([self.date_hierarchy, each]) for each in DATE_LOOKUPS}
        return names

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[StrictChangeList]:
        """Return the class of the change list."""
        return StrictChangeList

    def search_conditions(self, request: HttpRequest, words: str) -> list[Q]:
        """Return conditions that each have an index; a search finds the rows that meet one of them.

        If there are none, the `search_fields` are searched.

        Args:
            words: what the user searches for, with one space between two words.
        """
        return []

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Return the rows that a search finds, and False, because no row is found twice.

        If the list has `search_conditions`, they find the rows. If it has none, a search term that
        can be an id finds rows only by id, through an index. Any other search term finds rows only
        by text, because no index finds a part of an id.
        """
        words = " ".join(search_term.split())
        if words and (conditions := self.search_conditions(request, words)):
            # `StrictChangeList.get_queryset` reads `finds_few`.
            found, request.finds_few = found_in(queryset, conditions)  # type: ignore[attr-defined]
            return found, False
        ids: list[Q] = []
        texts = []
        for path in self.get_search_fields(request):
            field: Any = get_fields_from_path(self.model, path)[-1]
            if not isinstance(field, UUIDField | IntegerField):
                texts.append(path)
            elif _is_value_of(field, search_term.strip()):
                ids.append(Q(**{path: search_term.strip()}))
        if len(ids) > 1:
            return found_in(queryset, ids)[0], False
        if ids:
            return queryset.filter(*ids), False
        if search_term.strip() and not texts:
            return queryset.none(), False
        for word in smart_split(search_term):
            is_quoted = len(word) > 1 and word[0] in "\"'" and word[-1] == word[0]
            plain = unescape_string_literal(word) if is_quoted else word
            either = (contains(path, plain) for path in texts)
            queryset = queryset.filter(reduce(or_, either))
        return queryset, False

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the list or run the chosen action. After a refusal, a message explains why.

        Raises:
            PermissionDenied: the user may not run the chosen action, or has lost the permission
                for it since the list was shown. Django would show the list as if nothing had been
                chosen.
        """
        action = request.POST.get("action")
        if action and action not in self.get_actions(request):
            raise PermissionDenied
        shown: dict[str, Any] = {"exports": self._export_links(request)}
        if IS_POPUP_VAR not in request.GET:
            # Django's title is "Select ... to change".
            shown["title"] = self.list_name()
        times = {each.name for each in self.opts.fields if isinstance(each, DateTimeField)}
        if times & {*map(str, self.get_list_display(request))}:
            shown["zone"] = timezone.get_current_timezone_name()
        try:
            return super().changelist_view(request, {**shown, **(extra_context or {})})
        except SenselessList:
            here = request.path
            text = gettext(
                "The address of the list contains an invalid parameter, so all parameters are "
                "ignored."
            )
            self.message_user(request, text, messages.WARNING)
        except REFUSALS as error:
            here = request.get_full_path()
            self.message_user(request, message_of(error), messages.ERROR)
        return HttpResponseRedirect(here)

    def get_urls(self) -> list[Any]:
        """Return the URLs of the pages, and of the files with the rows of the list."""
        name = f"{self.opts.app_label}_{self.opts.model_name}_export"
        view = self.admin_site.admin_view(require_safe(self.export_view))
        return [url("export.<slug:ending>", view, name=name), *super().get_urls()]

    def list_name(self) -> Any:
        """Return the name of the list, as its title, the menu and the breadcrumbs show it."""
        return self.list_title or capfirst(str(self.opts.verbose_name_plural))

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> Any:
        """Show the page of a row. Its breadcrumbs contain the name of the list."""
        context["list_name"] = self.list_name()
        return super().render_change_form(request, context, add, change, form_url, obj)

    def _export_links(self, request: HttpRequest) -> list[tuple[Any, str]]:
        """Return the words and the URL of the link to each file.

        A file has all rows of the list, not only those of the page that is shown.
        """
        query = _without_page(request.GET).urlencode()
        return [
            (each.text, f"{request.path}export.{ending}?{query}")
            for ending, each in self.formats.items()
        ]

    def export_view(self, request: HttpRequest, ending: str) -> Any:
        """Return a file with the rows of the list.

        If the list has too many rows or an invalid parameter, redirect to the list.

        Raises:
            PermissionDenied: the user may not see the rows.
            Http404: there is no such format.
        """
        if not self.has_view_permission(request):
            raise PermissionDenied
        if ending not in self.formats:
            raise Http404
        kind = self.formats[ending]
        request.GET = _without_page(request.GET)  # type: ignore[assignment]
        try:
            rows = self.get_changelist_instance(request).queryset
            too_many = rows[kind.most : kind.most + 1].exists()
        except SenselessList:
            return HttpResponseRedirect(self._list_url(request))
        if too_many:
            text = gettext("The list has more than %(most)s rows. Filter it first.")
            self.message_user(request, text % {"most": grouped(kind.most)}, messages.ERROR)
            return HttpResponseRedirect(self._list_url(request))
        name = str(self.opts.verbose_name_plural).replace(" ", "-")
        return StreamingHttpResponse(
            kind.write(self, request, rows.iterator(chunk_size=CHUNK)),
            content_type=kind.content_type,
            # The name is translated, so it can contain any character.
            headers={
                "Content-Disposition": content_disposition_header(True, f"{name}.{ending}") or ""
            },
        )

    def _list_url(self, request: HttpRequest) -> str:
        """Return the URL of the list, with the parameters of the request."""
        return f"{list_of(self.model)}?{request.GET.urlencode()}"

    def response_action(  # type: ignore[override]
        self, request: Any, queryset: QuerySet[Any], **options: Any
    ) -> Any:
        """Run an action on the selected rows that are in the list; a message says how many are not.

        Args:
            options: what later versions of Django pass. In Django 6.1, this is the page on which
                the action was chosen.
        """
        selected = set(request.POST.getlist(ACTION_CHECKBOX_NAME))
        ids = [each for each in selected if _is_value_of(self.opts.pk, each)]
        if request.POST.get("select_across", "0") != "0":
            missing, count = 0, queryset[: MAX_ROWS + 1].count()
        else:
            count = queryset.filter(pk__in=ids).count()
            missing = len(selected) - count
        if missing:
            text = gettext("%(missing)s of the %(count)s selected rows are no longer in the list.")
            text %= {"missing": missing, "count": len(selected)}
            self.message_user(request, text, messages.WARNING)
        if count > MAX_ROWS:
            text = gettext("Select at most %(most)s rows at a time. No items have been changed.")
            text %= {"most": grouped(MAX_ROWS)}
            self.message_user(request, text, messages.ERROR)
        if not 0 < count <= MAX_ROWS:
            return None
        request.POST = request.POST.copy()
        request.POST.setlist(ACTION_CHECKBOX_NAME, ids)
        if "delete_selected" not in request.POST.getlist("action"):
            return super().response_action(request, queryset, **options)
        # Delete all rows or none, because Django logs all deletions before it deletes any row.
        with transaction.atomic():
            return super().response_action(request, queryset, **options)

    def apply(
        self,
        request: HttpRequest,
        rows: Iterable[Any],
        call: Callable[[Any], object],
        *,
        done: Any = CHANGED,
        name: Callable[[Any], str] = str,
    ) -> None:
        """Call `call` with each row. Messages say which rows were refused, and why.

        There is one message for each reason, because nobody reads a thousand messages. It names
        only a few of the refused rows. If there are no rows, a message says that nothing was
        changed. If the time of the request is almost over, or the database fails after a change,
        the action stops, and a message says how many rows are left. If the action went on, an error
        page would replace all messages.

        Args:
            call: changes one row, usually with a function in `services.py`.
            done: the message for the rows that were not refused, with a place for their number; by
                default, "%d changed."
            name: returns the name of a row in messages.
        """
        number = 0
        refused: dict[str, list[str]] = {}
        left = [*rows]
        while left and not deadlines.is_near():
            row = left[0]
            try:
                call(row)
                number += 1
            except REFUSALS as error:
                refused.setdefault(message_of(error), []).append(name(row))
            except Error as error:
                if number and is_database_unavailable(error):
                    break
                raise
            left.pop(0)
        for reason, names in refused.items():
            self.message_user(request, _refusal(reason, names), messages.ERROR)
        if number:
            self.message_user(request, done % number, messages.SUCCESS)
        elif not refused and not left:
            self.message_user(request, gettext("Nothing was changed."), messages.WARNING)
        if left:
            self.message_user(request, _unfinished(len(left)), messages.WARNING)

    def may_choose(self, request: HttpRequest) -> bool:
        """Return whether the user may find and choose rows in autocomplete fields, by name."""
        return self.has_public_names or self.has_view_permission(request)

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any:
        """Return a row, or None if there is none. An empty `?_to_field=` means the id."""
        return super().get_object(request, object_id, from_field or None)

    def row_to_change(self, request: HttpRequest, pk: object) -> Any:
        """Return a row that the user may change.

        Raises:
            Http404: the row does not exist.
            PermissionDenied: the user may not change it.
        """
        row = self.get_object(request, str(pk))
        if row is None:
            raise Http404
        if not self.has_change_permission(request, row):
            raise PermissionDenied
        return row

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        """Show or save a row; after a refusal, the form says why and keeps the entered values."""
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except REFUSALS as error:
            request.refusal = error  # type: ignore[attr-defined]
        # Try again: the first attempt stored nothing, and this time `get_form` makes the form
        # invalid.
        return super().changeform_view(request, object_id, form_url, extra_context)

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        """Return the form class; after a refusal, its forms are never valid and say why.

        The form of a stored row notices what somebody else has changed in the meantime.
        """
        form = super().get_form(request, obj, change=change, **kwargs)
        form = noticing(form) if obj is not None else form
        refusal = getattr(request, "refusal", None)
        return form if refusal is None else _refused(form, refusal)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save a row. If it is already stored, save only the fields that were changed on the page.

        The other fields may have been changed since the row was read: a rating, for example,
        changes with each review.

        Raises:
            Refused: the row was deleted in the meantime.
        """
        if not change:
            super().save_model(request, obj, form, change)
            return
        columns = {field.name for field in obj._meta.concrete_fields}
        changed = [name for name in form.changed_data if name in columns]
        if changed:
            _save(obj, changed)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> Any:
        """Ask, and delete a row; if it cannot be deleted, a message says why.

        Raises:
            PermissionDenied: the user may not delete the row, or may not see it. The question
                describes the row: for example, it names the customer of a booking.
        """
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            return super().delete_view(request, object_id, extra_context)
        except REFUSALS as error:
            self.message_user(request, message_of(error), messages.ERROR)
            return HttpResponseRedirect(
                reverse(admin_urlname(self.opts, "change"), args=[object_id])  # type: ignore[arg-type]
            )

    def response_delete(self, request: HttpRequest, obj_display: str, obj_id: Any) -> Any:
        """Say that the row is gone, and return to the list.

        Django would return to the home page if the user may not change rows.
        """
        response = super().response_delete(request, obj_display, obj_id)
        may_change = self.has_change_permission(request)
        return response if may_change else HttpResponseRedirect(list_of(self.model))

    def render_delete_form(self, request: HttpRequest, context: dict[str, Any]) -> Any:
        """Ask whether to delete a row and say what follows from it, or why it cannot be deleted."""
        row = context["object"]
        context |= {
            "title": self.delete_words,
            "heading": self.heading(row),
            "list_name": self.list_name(),
            "delete_words": self.delete_words,
            "delete_note": self.delete_note,
            "obstacle": self.in_use if is_referenced(row) else "",
        }
        return super().render_delete_form(request, context)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Return what the page lists as deleted: only the given rows.

        Django would load all rows that refer to the given rows, perhaps a million.
        """
        return [str(row) for row in objs], {self.opts.verbose_name_plural: len(objs)}, set(), []

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        """Delete one row."""
        self.delete_row(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: Iterable[Model]) -> None:
        """Delete the selected rows one by one.

        Raises:
            Refused: a row cannot be deleted; the message names the first such row.
        """
        for row in queryset:
            try:
                self.delete_row(request, row)
            except REFUSALS as error:
                text = gettext("Nothing was deleted. %(row)s: %(reason)s")
                raise Refused(text % {"row": row, "reason": message_of(error)}) from error

    def delete_row(self, request: HttpRequest, row: Any) -> None:
        """Delete one row. If deletions have rules, a subclass calls `services.py` instead."""
        delete_unreferenced(row)

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> Any:
        """Show what staff have done with a row in the admin site."""
        response = super().history_view(request, object_id, extra_context)
        if isinstance(response, TemplateResponse):
            shown: dict[str, Any] = response.context_data  # type: ignore[assignment]
            shown["heading"] = self.heading(shown["object"])
            shown["list_name"] = self.list_name()
            shown["title"] = gettext("Change history: %s") % shown["heading"]
        return response

    def formfield_for_dbfield(
        self, db_field: Any, request: HttpRequest, **kwargs: Any
    ) -> forms.Field | None:
        """Return the form field of a column; time zones are chosen from a list."""
        if validate_zone in db_field.validators:
            return zone_field(db_field, **kwargs)
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field is not None and isinstance(field.widget, RelatedFieldWidgetWrapper):
            # In the form of one row, nobody expects a button that deletes another row.
            field.widget.can_delete_related = False
        return field

    def formfield_for_foreignkey(
        self, db_field: Any, request: HttpRequest, **kwargs: Any
    ) -> forms.ModelChoiceField | None:
        """Return the form field of a relation.

        An autocomplete field ignores values that cannot be ids. It offers and accepts only rows
        that the list of the related model shows.
        """
        if db_field.name in self.get_autocomplete_fields(request):
            related: Any = self.admin_site.get_model_admin(db_field.remote_field.model)
            first = FIRST if related.may_choose(request) else 0
            widget = StrictAutocomplete(db_field, self.admin_site, first=first)
            kwargs.setdefault("widget", widget)
            kwargs.setdefault("queryset", related.get_queryset(request))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)


def _refused(form: Any, refusal: Exception) -> Any:
    """Return a subclass of `form` that shows why the entered values were refused."""

    class RefusedForm(form):
        def clean(self) -> Any:
            cleaned = super().clean()
            for field, texts in messages_of(refusal).items():
                self.add_error(field if field in self.fields else None, texts)
            return cleaned

    return RefusedForm


def _save(row: Model, columns: list[str]) -> None:
    try:
        row.save(update_fields=columns)
    except DatabaseError as error:
        # The row no longer exists. Before 6.0, Django raises a plain `DatabaseError` in this case.
        if type(error) is DatabaseError or isinstance(error, getattr(row, "NotUpdated", ())):
            raise Refused(GONE) from None
        raise


class ReadOnlyAdmin(StrictAdmin):
    """A model admin for rows that only BookIt's own code writes. People can only view them."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: only BookIt's own code adds rows."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: only BookIt's own code changes rows."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: only BookIt's own code deletes rows."""
        return False


class StampedAdmin(StrictAdmin):
    """A model admin for rows with an id and a creation time, which the page of a new row omits."""

    # The names of the fields that only a stored row has.
    record: Collection[str] = frozenset({"id", "created", "created_on", "rating"})
    # Maps the name of a relation to the field that shows it without a link. Users who may neither
    # change the relation nor see its page get this field instead. The page of a new row omits a
    # relation that is read-only.
    unlinked: ClassVar[Mapping[str, str]] = {}

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fieldsets; for a new row, leave out the fields that only a stored row has.

        Django links each read-only relation to a page, even if the user may not see this page. For
        such a user, the fieldsets of a stored row contain the field in `unlinked` instead.
        """
        fieldsets = super().get_fieldsets(request, obj)
        if obj is not None:
            instead: dict[Any, Any] = {
                name: field
                for name, field in self.unlinked.items()
                if not self._may_see_related(request, name)
                and self._is_readonly(request, obj, name)
            }
            return [
                (
                    title,
                    {**options, "fields": [instead.get(each, each) for each in options["fields"]]},
                )
                for title, options in fieldsets
            ]
        readonly = {*self.get_readonly_fields(request)}
        omitted = {*self.record, *(name for name in self.unlinked if name in readonly)}
        shown = []
        for name, options in fieldsets:
            fields = [each for each in options["fields"] if each not in omitted]
            if fields:
                shown.append((name, {**options, "fields": fields}))
        return shown

    def _may_see_related(self, request: HttpRequest, name: str) -> bool:
        related: Any = self.opts.get_field(name).related_model
        return self.admin_site.get_model_admin(related).has_view_permission(request)

    def _is_readonly(self, request: HttpRequest, row: Any, name: str) -> bool:
        may_change = self.has_change_permission(request, row)
        return not may_change or name in self.get_readonly_fields(request, row)


class ServedAdmin(StrictAdmin):
    """A model admin that changes rows only through functions in `services.py`.

    Unless a subclass says otherwise, people can view and delete the rows, but neither add nor edit
    them. Some subclasses also have actions and buttons that change the state of a row.
    """

    # Whether the form can be edited. If so, `save_model` calls a function in `services.py`.
    has_form = False

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return all fields that are shown, unless the form can be edited."""
        if self.has_form:
            return super().get_readonly_fields(request, obj)
        hidden = self.get_exclude(request, obj) or ()
        return [field.name for field in self.model._meta.fields if field.name not in hidden]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False. If people may add rows, the subclass overrides this method."""
        return False

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        """Show a row. Without a form, hide the save buttons, which would save nothing."""
        buttons = ("show_save", "show_save_and_continue", "show_save_and_add_another")
        shown = dict.fromkeys(buttons, self.has_form)
        return super().changeform_view(
            request, object_id, form_url, {**(extra_context or {}), **shown}
        )

    def delete_row(self, request: HttpRequest, row: Any) -> None:
        """Delete one row by calling a function in `services.py`.

        A subclass overrides this, unless it forbids deletion.
        """
        raise NotImplementedError

    def question(
        self,
        request: HttpRequest,
        title: str,
        rows: Sequence[Model],
        *,
        shown: Callable[[Any], Any],
    ) -> dict[str, Any]:
        """Return the context of a page that asks before an action changes rows.

        Args:
            shown: returns what the page shows of one of the first rows.
        """
        names = [shown(row) for row in rows[:ASKED]]
        return {
            **self.admin_site.each_context(request),
            "title": title,
            "opts": self.opts,
            "list_name": self.list_name(),
            "media": self.media,
            "ids": [row.pk for row in rows],
            "names": names,
            "more": len(rows) - len(names),
            "number": len(rows),
            "checkbox": ACTION_CHECKBOX_NAME,
        }


def _unfinished(left: int) -> str:
    """Return the message of an action that has stopped before it reached all rows."""
    text: str = ngettext(
        "The action stopped early. %(number)s row is left. Run the action again for it.",
        "The action stopped early. %(number)s rows are left. Run the action again for them.",
        left,
    )
    return text % {"number": grouped(left)}


def _refusal(reason: str, names: list[str]) -> str:
    """Return the message for the rows that were refused for the same reason."""
    words = {
        "number": grouped(len(names)),
        "reason": reason,
        "names": "; ".join(names[:NAMED]),
        "more": grouped(len(names) - NAMED),
    }
    if len(names) > NAMED:
        return gettext("%(number)s not changed. %(reason)s (%(names)s; and %(more)s more)") % words
    text: str = ngettext(
        "%(number)s not changed. %(reason)s (%(names)s)",
        "%(number)s not changed. %(reason)s (%(names)s)",
        len(names),
    )
    return text % words
