"""URLs of reviews."""

from django.urls import path

from reviews.viewsets import ReviewViewSet, ServiceReviewViewSet

urlpatterns = [
    path("services/<id:service_id>/reviews", ServiceReviewViewSet.as_view({"get": "list"})),
    path("reviews", ReviewViewSet.as_view({"get": "list", "post": "create"})),
    path(
        "reviews/<id:pk>",
        ReviewViewSet.as_view({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
    ),
]
