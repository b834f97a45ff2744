"""Reviews in the admin site."""

from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.db.models import Q
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import User
from bookit.adminsite.cards import Card, CardsAdmin
from bookit.adminsite.cells import code, exactly, link, moment, person
from bookit.adminsite.links import page_for
from bookit.adminsite.menu import Menu
from bookit.adminsite.pages import ServedAdmin, is_id
from bookit.adminsite.search import all_in
from catalog.models import Service
from reviews import services
from reviews.models import Review


def _stars(rating: int) -> Any:
    """Return a rating as stars, with hidden words for screen readers."""
    return format_html(
        '<span class="stars" aria-hidden="true">{}{}</span><span class="visually-hidden">{}</span>',
        "\N{BLACK STAR}" * rating,
        "\N{WHITE STAR}" * (5 - rating),
        _("%(stars)s of 5") % {"stars": rating},
    )


@admin.register(Review)
class ReviewAdmin(CardsAdmin, ServedAdmin):
    """The admin pages of reviews. Admins and permitted staff can read and delete reviews."""

    menu = Menu.REVIEWS
    list_display = ["stars", "comment_start", "service_title", "author", "written"]
    csv_columns = ["created_at", "rating", "comment", "service", "user"]
    list_filter = ["rating", "created_at"]
    list_select_related = ["service", "user"]
    search_fields = ["comment", "service__title", "user__email", "id"]
    date_hierarchy = "created_at"
    ordering = ["-created_at"]

    def search_conditions(self, request: HttpRequest, words: str) -> list[Q]:
        """Return conditions on the comment, the service's title and the author's email address.

        If the words are an id, return an empty list, so that the search finds the review by its id.
        """
        if is_id(words):
            return []
        services_found = Service.objects.filter(all_in(words, ["title"]))
        authors_found = User.objects.filter(all_in(words, ["email"]))
        return [
            all_in(words, ["comment"]),
            Q(service__in=services_found.values("pk")),
            Q(user__in=authors_found.values("pk")),
        ]

    @admin.display(description=gettext_lazy("rating"), ordering="rating")
    def stars(self, review: Review) -> Any:
        """Return the rating as stars."""
        return _stars(review.rating)

    @admin.display(description=gettext_lazy("comment"))
    def comment_start(self, review: Review) -> str:
        """Return the beginning of the comment."""
        return Truncator(review.comment).words(30)

    @admin.display(description=gettext_lazy("service"), ordering="service__title")
    def service_title(self, review: Review) -> str:
        """Return the title of the service."""
        return review.service.title

    @admin.display(description=gettext_lazy("customer"), ordering="user__name")
    def author(self, review: Review) -> Any:
        """Return the name and the email address of the author."""
        return person(review.user)

    @admin.display(description=gettext_lazy("written"), ordering="created_at")
    def written(self, review: Review) -> Any:
        """Return when the review was written."""
        return moment(review.created_at)

    def heading(self, row: Review) -> Any:
        """Return the heading of the page: the rating and the service."""
        return _("%(stars)s of 5 for %(service)s") % {
            "stars": row.rating,
            "service": row.service.title,
        }

    def cards(self, request: HttpRequest, row: Review) -> Sequence[Card]:
        """Return a card with the review, its author, its service and its booking."""
        tz = row.service.calendar.timezone
        booking = row.booking and exactly(row.booking.start_time, tz)
        facts = [
            (_("Rating"), _stars(row.rating)),
            (_("Comment"), row.comment or _("none")),
            (_("By"), link(page_for(request, row.user), row.user.in_words())),
            (_("Service"), link(page_for(request, row.service), row.service)),
            (_("Booking"), link(page_for(request, row.booking), booking or _("deleted"))),
            (_("Written"), exactly(row.created_at, tz)),
            (_("Last change"), exactly(row.updated_at, tz)),
            (_("Id"), code(row.pk)),
        ]
        return [Card(_("Review"), facts=facts)]

    def has_change_permission(self, request: HttpRequest, obj: Review | None = None) -> bool:
        """Return False, because only the author of a review may change it."""
        return False

    def delete_row(self, request: HttpRequest, row: Review) -> None:
        """Delete a review, and subtract its rating from the totals of the service."""
        services.delete_review(review_id=row.pk, actor=request.user)  # type: ignore[arg-type]
