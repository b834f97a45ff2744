"""The URL of categories."""

from django.urls import path

from catalog.categories.viewsets import CategoryViewSet

urlpatterns = [path("categories", CategoryViewSet.as_view({"get": "list"}))]
