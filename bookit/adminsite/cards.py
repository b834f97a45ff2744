"""Pages that show a row as cards, with buttons that act on the row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.contrib.admin.templatetags.admin_urls import admin_urlname
from django.contrib.admin.utils import model_format_dict, quote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import path, reverse
from django.views.decorators.http import require_POST

from bookit.adminsite.links import list_of, page_of
from bookit.adminsite.pages import StrictAdmin
from bookit.adminsite.refusals import REFUSALS, message_of


@dataclass(frozen=True)
class Card:
    """A section of a row's page, about one subject.

    Args:
        facts: pairs of a label and a value. Pairs whose value is empty or 0 are not shown.
        columns: the titles of the table's columns.
        lines: the rows of the table, each with a cell for every column. A table without rows is
            shown as "Nothing yet.".
        text: a preformatted text, for example JSON.
        note: a sentence that explains the card.
        more: the path and the words of a link to what the card leaves out.
    """

    title: Any
    facts: Sequence[tuple[Any, Any]] = ()
    columns: Sequence[Any] = ()
    lines: Sequence[Sequence[Any]] = ()
    text: str = ""
    note: Any = ""
    more: tuple[str, Any] | None = None


class CardsAdmin(StrictAdmin):
    """A model admin that shows rows as cards instead of a form.

    The `buttons` on a row's page run actions of the list on this row only. An action therefore has
    the same implementation, permission and wording on the list and on the page of a row.
    """

    change_form_template = "bookit/cards.html"
    # The names of the actions that are also buttons on the page of a row, in order. An action that
    # returns a page, for example to ask first, cannot be a button: `act_view` would not show it.
    buttons: Sequence[str] = ()

    class Media:
        css = {"all": ["bookit/operator.css"]}

    def cards(self, request: HttpRequest, row: Any) -> Sequence[Card]:
        """Return the cards of a row's page."""
        raise NotImplementedError

    def offers(self, row: Any, action: str) -> bool:
        """Return whether the state of a row allows an action. The action checks this again."""
        return True

    def get_urls(self) -> list[Any]:
        """Return the URLs, with one for the buttons of a row's page."""
        view = self.admin_site.admin_view(require_POST(self.act_view))
        name = f"{self.opts.app_label}_{self.opts.model_name}_act"
        act = path("<path:object_id>/act/<slug:action>/", view, name=name)
        return [act, *super().get_urls()]

    def act_view(self, request: HttpRequest, object_id: str, action: str) -> HttpResponse:
        """Run an action on one row. Then show the row's page again, or the list if the row is gone.

        Raises:
            PermissionDenied: the action is not one of the `buttons`, or the user may not run it.
            Http404: the row does not exist.
        """
        allowed: dict[str, Any] = self.get_actions(request)
        if action not in self.buttons or action not in allowed:
            raise PermissionDenied
        row = self.get_object(request, object_id)
        if row is None:
            raise Http404
        rows = self.get_queryset(request).filter(pk=row.pk)
        try:
            allowed[action][0](self, request, rows)
        except REFUSALS as error:
            self.message_user(request, message_of(error), messages.ERROR)
        if rows.all().exists():  # `rows` may have cached the row before the action deleted it.
            return redirect(page_of(row))
        return redirect(list_of(self.model))

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> Any:
        """Show the cards and buttons of a row. Pages for new rows keep their form."""
        if obj is not None:
            context |= {
                "title": self.heading(obj),
                "subtitle": None,
                "cards": self.cards(request, obj),
                "row_buttons": self._row_buttons(request, obj),
                "delete_words": self.delete_words,
            }
        return super().render_change_form(request, context, add, change, form_url, obj)

    def _row_buttons(self, request: HttpRequest, row: Any) -> list[dict[str, Any]]:
        allowed: dict[str, Any] = self.get_actions(request)
        return [
            {
                "path": reverse(admin_urlname(self.opts, "act"), args=[quote(row.pk), name]),  # type: ignore[arg-type]
                "words": str(allowed[name][2]) % model_format_dict(self.opts),
            }
            for name in self.buttons
            if name in allowed and self.offers(row, name)
        ]
