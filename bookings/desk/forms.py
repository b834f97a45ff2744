"""The forms on the page of a booking."""

from datetime import datetime
from typing import Any
from uuid import UUID

from django import forms
from django.utils.translation import gettext_lazy as _

from bookit.adminsite.fields import LinesField
from bookit.times import parse_instant


class CancelForm(forms.Form):
    """The reason for a cancellation, for the customer."""

    reason = LinesField(
        label=_("Reason"),
        required=False,
        max_length=500,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text=_(
            "Optional. The customer reads it in the email about the cancellation if their email "
            "address is verified."
        ),
    )


class NoteForm(forms.Form):
    """A note for other staff."""

    text = LinesField(
        label=_("New note"),
        max_length=2000,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text=_(
            "Only staff see notes. A customer who exports their data gets the notes about them."
        ),
    )


class MoveForm(forms.Form):
    """The free time to which a booking moves."""

    to = forms.CharField(
        label=_("New time"),
        max_length=60,
        error_messages={"required": _("Choose one of the free times.")},
    )

    def clean_to(self) -> dict[str, Any]:
        """Return the slot or the start as arguments for `reschedule_booking`."""
        text = self.cleaned_data["to"]
        try:
            return {"slot_id": UUID(text)}
        except ValueError:
            pass
        try:
            start: datetime = parse_instant(text)
        except ValueError as error:
            raise forms.ValidationError(str(error)) from None
        return {"start_time": start}
