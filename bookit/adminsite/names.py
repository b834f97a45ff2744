"""Translates the names of models and fields.

A field is named after its attribute, unless it has a `verbose_name`. The admin site shows these
names as titles of columns, and errors of forms and serializers contain them. They are translated
here, once for all models, so that no model has to repeat each name in a call of `gettext_lazy`, and
no name can be forgotten. Migrations are not affected, because they record only what a model states
itself.
"""

from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.db.models import Field, Model
from django.utils.translation import gettext_lazy

OUR_APPS = frozenset(
    {"accounts", "bookings", "catalog", "idempotency", "jobs", "mails", "restores", "reviews"}
)
# Apps of packages that translate few or none of these names. The admin site shows some of their
# models.
OTHER_APPS = frozenset({"procrastinate", "token_blacklist"})


def named_models() -> Iterator[type[Model]]:
    """Yield the models whose names are translated."""
    for model in apps.get_models(include_auto_created=True):
        if model._meta.app_label in OUR_APPS | OTHER_APPS:
            yield model


def translate_names() -> None:
    """Make the names of apps, models and fields translatable.

    This includes the help texts of fields and, in `OTHER_APPS`, their choices.
    """
    for model in named_models():
        for named, attribute in _named(model):
            name = str(getattr(named, attribute))
            if name:
                setattr(named, attribute, gettext_lazy(name))
        for field in model._meta.concrete_fields:
            if model._meta.app_label in OTHER_APPS and field.choices:
                field.choices = [(key, gettext_lazy(str(words))) for key, words in field.choices]
    for config in apps.get_app_configs():
        if config.label in OUR_APPS | OTHER_APPS:
            config.verbose_name = gettext_lazy(str(config.verbose_name))


def names_of(model: type[Model]) -> Iterator[str]:
    """Yield the names of a model and of its fields, and the help texts of the fields."""
    for named, attribute in _named(model):
        name = getattr(named, attribute)
        if name:
            yield str(name)


def _named(model: type[Model]) -> Iterator[tuple[Any, str]]:
    yield model._meta, "verbose_name"
    yield model._meta, "verbose_name_plural"
    for field in model._meta.get_fields():
        if isinstance(field, Field):
            yield field, "verbose_name"
            yield field, "help_text"


def choices_of(model: type[Model]) -> Iterator[str]:
    """Yield the choice labels of a model in `OTHER_APPS`. Our own models translate their labels."""
    for field in model._meta.concrete_fields if model._meta.app_label in OTHER_APPS else ():
        for _key, words in field.choices or ():
            yield str(words)
