"""Reviews in the admin site."""

from django.contrib import admin
from django.http import HttpRequest

from bookit.adminsite.menu import Menu
from bookit.adminsite.pages import ServedAdmin
from reviews import services
from reviews.models import Review


@admin.register(Review)
class ReviewAdmin(ServedAdmin):
    """The admin pages of reviews. Admins can read and delete reviews."""

    menu = Menu.REVIEWS
    list_display = ["created_at", "rating", "comment", "service", "user"]
    list_filter = ["rating", "created_at"]
    list_select_related = ["service", "user"]
    search_fields = ["comment", "service__title", "user__email", "id"]
    date_hierarchy = "created_at"
    ordering = ["-created_at"]

    def has_change_permission(self, request: HttpRequest, obj: Review | None = None) -> bool:
        """Return False, because only the author of a review may change it."""
        return False

    def delete_row(self, request: HttpRequest, row: Review) -> None:
        """Delete a review, and subtract its rating from the totals of the service."""
        services.delete_review(review_id=row.pk, actor=request.user)  # type: ignore[arg-type]
