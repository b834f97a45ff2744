"""Reviews in the admin site."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.text import Truncator
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from bookit.adminsite.cells import moment, person
from bookit.adminsite.menu import Menu
from bookit.adminsite.pages import ServedAdmin
from reviews import services
from reviews.models import Review


@admin.register(Review)
class ReviewAdmin(ServedAdmin):
    """The admin pages of reviews. Admins can read and delete reviews."""

    menu = Menu.REVIEWS
    list_display = ["stars", "words", "about", "author", "written"]
    csv_columns = ["created_at", "rating", "comment", "service", "user"]
    list_filter = ["rating", "created_at"]
    list_select_related = ["service", "user"]
    search_fields = ["comment", "service__title", "user__email", "id"]
    date_hierarchy = "created_at"
    ordering = ["-created_at"]

    @admin.display(description=_("rating"), ordering="rating")
    def stars(self, review: Review) -> Any:
        """Return the rating as stars, and in words for screen readers."""
        return format_html(
            '<span class="stars" aria-hidden="true">{}{}</span>'
            '<span class="visually-hidden">{}</span>',
            "\N{BLACK STAR}" * review.rating,
            "\N{WHITE STAR}" * (5 - review.rating),
            gettext("%(rating)s of 5") % {"rating": review.rating},
        )

    @admin.display(description=_("comment"))
    def words(self, review: Review) -> str:
        """Return the beginning of the comment."""
        return Truncator(review.comment).words(30)

    @admin.display(description=_("service"), ordering="service__title")
    def about(self, review: Review) -> str:
        """Return the service."""
        return review.service.title

    @admin.display(description=_("customer"), ordering="user__name")
    def author(self, review: Review) -> Any:
        """Return the name and the email address of the author."""
        return person(review.user)

    @admin.display(description=_("written"), ordering="created_at")
    def written(self, review: Review) -> Any:
        """Return when the review was written."""
        return moment(review.created_at)

    def has_change_permission(self, request: HttpRequest, obj: Review | None = None) -> bool:
        """Return False, because only the author of a review may change it."""
        return False

    def delete_row(self, request: HttpRequest, row: Review) -> None:
        """Delete a review, and subtract its rating from the totals of the service."""
        services.delete_review(review_id=row.pk, actor=request.user)  # type: ignore[arg-type]
