"""The form that a receptionist fills in during a call, and forms with some of its fields."""

from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import UUID

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts.emails import canonical
from accounts.models import User, validate_phone
from bookings.phone.services import Caller, customers
from bookings.services import may_override
from bookit import money
from bookit.adminsite.fields import DayField, LinesField
from bookit.adminsite.pages import is_id
from bookit.times import parse_instant
from catalog.models import Service

# The form lists at most this many services. Nobody would find a service in a longer list. An active
# service that is already chosen, for example by a link from another page, is listed in addition.
MOST_SERVICES = 500


class InstantField(forms.Field):
    """An RFC 3339 time with an offset, which the radio button of a free time sends."""

    def to_python(self, value: Any) -> datetime | None:
        """Return the time.

        Raises:
            ValidationError: the text is not a time with an offset, or its year is not from 1900 to
                2999.
        """
        if not value:
            return None
        try:
            return parse_instant(str(value))
        except ValueError as error:
            raise ValidationError(str(error)) from None


def service_choices(*, chosen: str) -> tuple[list[Any], bool]:
    """Return the first active services as choices, grouped by calendar, and whether there are more.

    Args:
        chosen: what the form contains. If it is the id of an active service, this service is a
            choice even if it is not among the first.
    """
    rows = (
        Service.objects.filter(is_active=True)
        .order_by("calendar__name", "calendar", "title", "id")
        .values_list(
            *("calendar__name", "calendar"),
            *("id", "title", "duration_minutes", "price", "currency"),
        )
    )
    first = [*rows[: MOST_SERVICES + 1]]
    is_cut = len(first) > MOST_SERVICES
    if is_cut:
        first = first[:MOST_SERVICES]
        chosen = chosen.strip()
        if is_id(chosen) and chosen not in {str(row[2]) for row in first}:
            first = [*rows.filter(pk=chosen), *first]
    groups = groupby(first, key=lambda row: row[:2])
    choices = [
        (
            calendar,
            [
                (
                    str(pk),
                    gettext("%(title)s, %(minutes)d min, %(price)s")
                    % {"title": title, "minutes": minutes, "price": money.written(price, currency)},
                )
                for _calendar, _id, pk, title, minutes, price, currency in group
            ],
        )
        for (calendar, _id), group in groups
    ]
    return choices, is_cut


class StaffForm(forms.Form):
    """A form that depends on the permissions of `actor`, who fills it in."""

    def __init__(self, *args: Any, actor: User, **options: Any) -> None:
        super().__init__(*args, **options)
        self.actor = actor


class CustomerForm(StaffForm):
    """A customer who was chosen from the search, if any."""

    customer = forms.UUIDField(required=False, widget=forms.HiddenInput)

    def clean_customer(self) -> User | None:
        """Return the account that was chosen from the search.

        Raises:
            ValidationError: `actor` can no longer find this account, for example because it was
                deleted.
        """
        pk = self.cleaned_data["customer"]
        if pk is None:
            return None
        found = customers(actor=self.actor).filter(pk=pk).first()
        if found is None:
            raise ValidationError(_("This customer cannot be found any more. Search again."))
        return found


class WhenForm(StaffForm):
    """What decides which free times are shown: service, first day, overrides, and the call's hold.

    Args:
        listed: the services of another form of the same request, which are not read again.
    """

    service = forms.TypedChoiceField(label=_("Service"), coerce=UUID)
    day = DayField(label=_("From"), required=False)
    overrides = forms.BooleanField(
        label=_("Also offer times at short notice or far ahead"),
        help_text=_(
            "Customers cannot book these times themselves. The history of the booking shows which "
            "limit was overridden."
        ),
        required=False,
    )
    hold = forms.UUIDField(required=False, widget=forms.HiddenInput)

    def __init__(
        self, *args: Any, listed: tuple[list[Any], bool] | None = None, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        if not may_override(actor=self.actor):
            del self.fields["overrides"]
        service = self["service"]
        self.listed = listed or service_choices(chosen=str(service.value() or ""))
        choices, is_cut = self.listed
        # If there is only one service, the browser chooses it, so the form asks for no choice.
        if sum(len(group) for _calendar, group in choices) != 1:
            choices = [("", _("Choose a service")), *choices]
        service.field.choices = choices  # type: ignore[attr-defined]
        if is_cut:
            service.help_text = gettext(
                "Only the first %(most)s services are listed. Book the others from the diary."
            ) % {"most": MOST_SERVICES}


class HoldForm(CustomerForm, WhenForm):
    """The free time to hold, and the customer if one is already chosen."""

    start = InstantField(
        label=_("Time"), error_messages={"required": _("Choose one of the free times.")}
    )


class CallForm(HoldForm):
    """Everything that a receptionist enters during a call."""

    name = forms.CharField(label=_("Name"), max_length=200)
    email = forms.EmailField(label=_("Email address"), max_length=254, required=False)
    phone = forms.CharField(
        label=_("Phone number"),
        max_length=32,
        required=False,
        validators=[validate_phone],
        widget=forms.TextInput(attrs={"type": "tel"}),
    )
    notes = LinesField(
        label=_("Notes"),
        max_length=2000,
        required=False,
        help_text=_("The customer sees them."),
        widget=forms.Textarea(attrs={"rows": 2}),
    )
    confirm = forms.BooleanField(
        label=_("Confirm at once"),
        help_text=_("Otherwise, the booking is pending if the service requires confirmation."),
        required=False,
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, label_suffix="", **options)
        self.fields["name"].widget.attrs["autofocus"] = True
        if not self.actor.may("bookings.change_booking"):
            del self.fields["confirm"]

    def clean_email(self) -> str:
        """Return the address in its canonical spelling, as accounts store it; empty if not given.

        Raises:
            ValidationError: no account can have this address.
        """
        email: str = self.cleaned_data["email"]
        return canonical(email) if email else ""

    def clean(self) -> dict[str, Any]:
        """Return the values. If there is no way to reach the customer, `phone` gets an error.

        There is no second error if `email` or `phone` already has one.
        """
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        has_error = {"email", "phone"} & self.errors.keys()
        ways = ("customer", "email", "phone")
        if not has_error and not any(cleaned.get(each) for each in ways):
            self.add_error(
                "phone",
                _("Enter a phone number or an email address at which the customer can be reached."),
            )
        return cleaned

    @property
    def caller(self) -> Caller:
        """The caller. The form must be valid."""
        written = self.cleaned_data
        return Caller(
            customer=written["customer"],
            name=written["name"],
            email=written["email"],
            phone=written["phone"],
        )
