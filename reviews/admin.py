"""Reviews in the admin site."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from bookit.adminsite.pages import ReadOnlyAdmin
from reviews import services
from reviews.models import Review


@admin.register(Review)
class ReviewAdmin(ReadOnlyAdmin):
    """What people say: to read, and to take down."""

    list_display = ["created_at", "rating", "comment", "service", "user"]
    list_filter = ["rating", "created_at"]
    list_select_related = ["service", "user"]
    search_fields = ["comment", "service__title", "user__email", "id"]
    date_hierarchy = "created_at"
    ordering = ["-created_at"]

    def has_delete_permission(self, request: HttpRequest, obj: Review | None = None) -> bool:
        """Allow it as for any model."""
        return super(ReadOnlyAdmin, self).has_delete_permission(request, obj)

    def delete_model(self, request: HttpRequest, obj: Review) -> None:
        """Delete a review and take its rating back."""
        services.delete_review(review_id=obj.pk, actor=request.user)  # type: ignore[arg-type]

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Review]) -> None:
        """Delete reviews and take their ratings back."""
        for review in queryset:
            self.delete_model(request, review)
