"""Addresses of reviews."""

from django.urls import path

from reviews.viewsets import ReviewViewSet, ServiceReviewViewSet

urlpatterns = [
    path("services/<uuid:service_id>/reviews", ServiceReviewViewSet.as_view({"get": "list"})),
    path("reviews", ReviewViewSet.as_view({"get": "list", "post": "create"})),
    path(
        "reviews/<uuid:pk>",
        ReviewViewSet.as_view({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
    ),
]
