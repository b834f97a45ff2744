"""Addresses of pages of the admin site."""

from typing import Any

from django.db.models import Model
from django.urls import reverse


def url_of(model: type[Model] | Model, kind: str, *args: Any) -> str:
    """Return the address of a page of a model, such as `changelist`."""
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{kind}", args=args)
