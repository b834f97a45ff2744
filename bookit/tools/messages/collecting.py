"""Collects the texts of BookIt that need a translation."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from django.apps import AppConfig, apps
from django.conf import settings
from django.contrib import admin
from django.urls import get_resolver
from django.utils.translation.template import templatize

from bookit.adminsite.names import OTHER_APPS, OUR_APPS, choices_of, names_of
from bookit.errors import ServiceError

PACKAGES = ("bookit", "accounts", "catalog", "bookings", "reviews")

# The functions of `django.utils.translation`. Each letter stands for a string argument: `t` for the
# text, `p` for its plural and `c` for its context.
FUNCTIONS = {
    **dict.fromkeys(("gettext", "gettext_lazy", "gettext_noop"), "t"),
    **dict.fromkeys(("ngettext", "ngettext_lazy"), "tp"),
    **dict.fromkeys(("pgettext", "pgettext_lazy"), "ct"),
    **dict.fromkeys(("npgettext", "npgettext_lazy"), "ctp"),
}

_TEXT = r"""u?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
# A call in the output of Django's `templatize`, which turns each translated tag of a template into
# a call, and masks everything else.
_CALL = re.compile(rf"\b(_|n?p?gettext)\(({_TEXT}(?:,\s*{_TEXT})*)(?:,\s*count)?\)")


class Message(NamedTuple):
    """A text that needs a translation.

    Args:
        file: the path of its file inside the repository.
        plural: its plural form, or empty.
        context: a word that distinguishes the text from the same text with another meaning, or
            empty.
    """

    file: str
    text: str
    plural: str = ""
    context: str = ""


def messages() -> list[Message]:
    """Return all texts, in the order of their files."""
    found = [*_in_code(), *_in_templates(), *_of_errors(), *_of_models()]
    return sorted(dict.fromkeys(found), key=lambda message: message.file)


def _files(pattern: str) -> Iterator[Path]:
    for package in PACKAGES:
        for path in sorted((settings.BASE_DIR / package).rglob(pattern)):
            if "tests" not in path.parts:
                yield path


def _in_code() -> Iterator[Message]:
    for path in _files("*.py"):
        tree = ast.parse(path.read_text())
        # Modules may import the functions under other names, for example `_`.
        functions = {
            alias.asname or alias.name: FUNCTIONS[alias.name]
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "django.utils.translation"
            for alias in node.names
            if alias.name in FUNCTIONS
        }
        for node in ast.walk(tree) if functions else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                kinds = functions.get(node.func.id)
                texts = [str(each.value) for each in node.args if isinstance(each, ast.Constant)]
                if kinds and len(texts) >= len(kinds):
                    yield _message(path, kinds, texts)


def _in_templates() -> Iterator[Message]:
    for path in (*_files("templates/**/*.html"), *_files("templates/**/*.txt")):
        for name, texts in _CALL.findall(templatize(path.read_text(), str(path))):
            yield _message(path, FUNCTIONS.get(name, "t"), ast.literal_eval(f"[{texts}]"))


def _of_errors() -> Iterator[Message]:
    """Yield the default messages of errors: the first paragraphs of their classes' docstrings."""
    get_resolver().url_patterns  # noqa: B018 - imports the modules that define errors
    waiting = [ServiceError]
    while waiting:
        error = waiting.pop()
        waiting += error.__subclasses__()
        if error.__module__.partition(".")[0] in PACKAGES and ".tests" not in error.__module__:
            yield Message(_path_of(error.__module__), error.message())


def _of_models() -> Iterator[Message]:
    """Yield the names of the apps, and the texts of the models that the admin site shows."""
    shown = {*admin.site._registry}
    for page in admin.site._registry.values():
        shown |= {each.model for each in page.inlines}
    for config in apps.get_app_configs():
        if config.label in OUR_APPS | OTHER_APPS:
            # If an app has no `AppConfig` class of its own, its name is derived from its package.
            is_plain = type(config) is AppConfig
            module = config.name if is_plain else type(config).__module__
            yield Message(_path_of(module), str(config.verbose_name))
    for model in sorted(shown, key=lambda model: model._meta.label):
        for name in (*names_of(model), *choices_of(model)):
            yield Message(_path_of(model.__module__), name)


def _path_of(module: str) -> str:
    """Return the path of the file of an imported module."""
    is_package = hasattr(sys.modules[module], "__path__")
    return f"{module.replace('.', '/')}{'/__init__' if is_package else ''}.py"


def _message(path: Path, kinds: str, texts: list[str]) -> Message:
    parts = dict(zip(kinds, texts, strict=False))
    file = path.relative_to(settings.BASE_DIR).as_posix()
    return Message(file, parts["t"], parts.get("p", ""), parts.get("c", ""))
