"""The extension points of the admin site: the cards of its home page, and pages in its menu."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property, wraps
from typing import Any
from zoneinfo import ZoneInfo

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.shortcuts import resolve_url
from django.urls import URLPattern

from bookit.adminsite.menu import Menu
from bookit.extensions import Extensions
from bookit.times import day_end, day_start


@dataclass(frozen=True)
class Glance:
    """The facts about one request for the home page: who looks at it, and when.

    Args:
        user: the signed-in user.
        at: the current time.
        zone: the time zone of the user, which decides when a day begins.
    """

    user: Any
    at: datetime
    zone: ZoneInfo

    @cached_property
    def today(self) -> date:
        """The current date in the time zone of the user."""
        return self.at.astimezone(self.zone).date()

    def days(self, first: date, last: date) -> tuple[datetime, datetime]:
        """Return the half-open period from the beginning of `first` to the end of `last`."""
        return day_start(first, self.zone), day_end(last, self.zone)


@dataclass(frozen=True)
class HomeCard:
    """A part of the home page.

    Args:
        place: where the card is shown; the lowest number comes first.
        template: shows the card. Its context has `name`, the name of the card, and `shown`, which
            is what `read` returns.
        read: returns what the template shows, with at most three queries whose cost does not
            grow with the history; None if there is nothing worth showing.
        permission: the Django permission that a user needs to see the card. If it is empty, only
            admins see the card.
        wide: whether the card takes the whole width of the page.
        act: makes the change that a form of the card asks for, and reports it as a message. The
            form is sent to `admin:index`, with the name of the card in its field `card`.
        act_permission: the Django permission that `act` needs.
    """

    place: int
    template: str
    read: Callable[[Glance], dict[str, Any] | None]
    permission: str = ""
    wide: bool = False
    act: Callable[[HttpRequest, datetime], None] | None = None
    act_permission: str = ""

    def is_for(self, user: Any) -> bool:
        """Return whether the user may see the card."""
        return _may(user, self.permission)


@dataclass(frozen=True)
class Page:
    """A page in the menu that is not the list of a model.

    Args:
        menu: the part of the menu that contains the link, before the links to lists of models.
        title: the words of the link, as a lazy translation.
        to: the name of a URL pattern, or a path.
        permission: the Django permission that a user needs to see the link and to open `urls`. If
            it is empty, only admins may.
        urls: URL patterns to add to the admin site, which passes their views to `guarded` and to
            `admin_view`.
        is_button: whether the home page also shows the link as a button at its top.
    """

    menu: Menu
    title: Any
    to: Any
    permission: str = ""
    urls: Sequence[URLPattern] = ()
    is_button: bool = False

    @property
    def path(self) -> str:
        """The path to which the link leads."""
        return resolve_url(self.to)

    def is_for(self, user: Any) -> bool:
        """Return whether the user may see the page."""
        return _may(user, self.permission)

    def guarded(self, view: Callable[..., Any]) -> Callable[..., Any]:
        """Return the view, but refuse users who may not see the page."""

        @wraps(view)
        def run(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if not self.is_for(request.user):
                raise PermissionDenied
            return view(request, *args, **kwargs)

        return run


def _may(user: Any, permission: str) -> bool:
    return bool(user.has_perm(permission) if permission else user.is_superuser)


#: The cards of the home page, by name.
HOME_CARDS: Extensions[HomeCard] = Extensions()

#: The pages in the menu, by name.
PAGES: Extensions[Page] = Extensions()
