"""Forms that notice what somebody else has changed since their page was opened."""

from typing import Any

from django import forms
from django.forms.boundfield import BoundField
from django.utils.text import Truncator
from django.utils.translation import gettext as _

# A message shows at most this many characters of somebody else's text.
MOST = 60


def noticing(form: Any) -> Any:
    """Return a subclass of `form` that replaces only stored values that its user has seen.

    A form contains all fields, including those that its user left alone. Two people who change the
    same row would therefore undo each other's changes without noticing it. To prevent this, the
    page also sends the values that it showed (Django's `show_hidden_initial`), and only a field
    that its user changed counts as changed. If somebody else has changed the same field, the form
    says so at the field; sending it once more replaces their value.
    """

    class NoticingForm(form):
        data: Any

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            # If a script sends the form without the shown values, no field counts as stale.
            known = not self.is_bound or any(
                self.add_initial_prefix(name) in self.data for name in self.fields
            )
            for field in self.fields.values():
                field.show_hidden_initial = known and not field.disabled

        def clean(self) -> Any:
            cleaned = super().clean()
            if self.instance._state.adding:
                # The row has no stored values. In a formset, somebody may have deleted it.
                return cleaned
            for name in self.changed_data:
                bound = self[name]
                if name not in self.errors and bound.field.show_hidden_initial and _is_stale(bound):
                    self.add_error(name, _text(bound))
                    self._show_stored(bound)
            return cleaned

        def _show_stored(self, bound: BoundField) -> None:
            """Put the stored value into the hidden input, so that the next save may replace it."""
            self.data = self.data.copy()
            hidden, value = _hidden(bound)
            if isinstance(hidden, forms.MultipleHiddenInput):
                self.data.setlist(bound.html_initial_name, [str(each) for each in value or ()])
            else:
                self.data[bound.html_initial_name] = hidden.format_value(value) or ""

    return NoticingForm


def _hidden(bound: BoundField) -> tuple[forms.Widget, Any]:
    """Return the widget that sends the shown value of a field, and the stored value."""
    return bound.field.hidden_widget(), bound.field.prepare_value(bound.initial)


def _is_stale(bound: BoundField) -> bool:
    """Return whether the stored value differs from both the shown value and the sent value."""
    hidden, _value = _hidden(bound)
    shown = hidden.value_from_datadict(bound.form.data, bound.form.files, bound.html_initial_name)
    return all(bound.field.has_changed(bound.initial, each) for each in (shown, bound.data))


def _text(bound: BoundField) -> str:
    value = _words(bound)
    if not value:
        return _(
            "Somebody else has changed this since you opened the page. Save again to replace it."
        )
    return _(
        "Somebody else has changed this to \u201c%(value)s\u201d since you opened the page. Save"
        " again to replace it."
    ) % {"value": Truncator(value).chars(MOST)}


def _words(bound: BoundField) -> str:
    """Return the stored value in words; empty for a relation, a list, or a date with a time."""
    value = bound.field.prepare_value(bound.initial)
    wordless = forms.ModelChoiceField | forms.MultipleChoiceField | forms.MultiValueField
    if isinstance(bound.field, wordless):
        return ""
    if isinstance(bound.field, forms.BooleanField):
        return str(_("yes") if value else _("no"))
    if isinstance(bound.field, forms.ChoiceField):
        choices: Any = bound.field.choices
        groups = (
            label if isinstance(label, list | tuple) else [(key, label)] for key, label in choices
        )
        return next(
            (str(label) for group in groups for key, label in group if str(key) == str(value)), ""
        )
    return "" if value is None else str(value)
