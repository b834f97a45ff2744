"""Each email address has one canonical spelling."""

import unicodedata

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.test import Client
from hypothesis import example, given
from hypothesis import strategies as st

from accounts.emails import canonical, lookup_form
from accounts.models import User
from accounts.tests.factories import PASSWORD, AdminFactory, UserFactory
from bookings.tests.factories import TUESDAY
from bookit.tests.crowd import run
from bookit.tests.expect import problem
from catalog.tests.factories import ServiceFactory

pytestmark = pytest.mark.django_db

NEW = {"name": "Sue", "email": "sue@example.com", "password": PASSWORD}

# Email addresses that look like sue@example.com, that belong to the same mailbox, or that name
# a host by its IP address.
LOOKALIKES = [
    "\u017fue@example.com",
    "sue@example\u3002com",
    "sue@\uff45xample.com",
    "sue@exam\u200bple.com",
    "sue@exam\u200dple.com",
    "sue@exam\u2060ple.com",
    "sue@ex\u00adample.com",
    "sue@ex\ufe0fample.com",
    "sue@\u212fxample.com",
    "sue@exam\u034fple.com",
    "sue@example.com\u200b",
    "\u200bsue@example.com",
    '"sue"@example.com',
    "sue@[127.0.0.1]",
    "sue@example.com.",
]
NON_ASCII = [each for each in LOOKALIKES if not each.isascii()]


@pytest.mark.parametrize("email", LOOKALIKES)
def test_a_lookalike_cannot_become_the_address_of_an_account(api, email):
    UserFactory(email="sue@example.com")
    problem(api.post("/auth/register", {**NEW, "email": email}), 400, "validation_error", "email")
    client = api.as_(UserFactory())
    problem(client.patch("/me", {"email": email}), 400, "validation_error", "email")
    assert User.objects.filter(email__contains="ue").count() == 1


def test_an_address_that_is_too_long_in_ascii_is_refused(api):
    email = f"{'a' * 200}@{''.join(map(chr, range(0x100, 0x120, 2)))}{'x' * 20}.com"
    assert len(email) < 254
    problem(api.post("/auth/register", {**NEW, "email": email}), 400, "validation_error", "email")
    change = {"email": email, "current_password": PASSWORD}
    client = api.as_(UserFactory())
    problem(client.patch("/me", change), 400, "validation_error", "email")
    browser = Client()
    browser.force_login(AdminFactory())
    form = {"email": email, "name": "Sue", "role": "user", "usable_password": "true"}
    added = {**form, "password1": PASSWORD, "password2": PASSWORD}
    response = browser.post("/admin/accounts/user/add/", added)
    assert "email" in response.context["adminform"].form.errors


@pytest.mark.parametrize("email", [*LOOKALIKES, "\u212aelvin@example.com", "sue", "@", ""])
def test_a_lookalike_or_malformed_address_cannot_sign_in(api, email):
    admin = AdminFactory(email="sue@example.com")
    UserFactory(email="kelvin@example.com")
    # The API refuses an empty address with a 400.
    body = {"email": email or " x", "password": PASSWORD}
    problem(api.post("/auth/login", body), 401, "invalid_credentials")
    # Django's login form applies NFKC to the input, which can turn a lookalike into the plain email
    # address.
    if unicodedata.is_normalized("NFKC", email):
        form = {"username": email, "password": PASSWORD}
        assert Client().post("/admin/login/", form).status_code == 200
    assert not admin.sessions.exists()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("sue@b\u00fccher.example", "sue@xn--bcher-kva.example"),
        ("sue@xn--bcher-kva.example", "SUE@B\u00dcCHER.example"),
        ("sue@stra\u00dfe.example", "sue@XN--STRAE-OQA.example"),
        ("sue@example.com", " SUE@Example.COM "),
    ],
)
def test_two_spellings_of_an_email_address_lead_to_one_account(api, first, second):
    made = api.post("/auth/register", {**NEW, "email": first})
    assert made.status_code == 201
    assert made.json()["email"].isascii()
    problem(api.post("/auth/register", {**NEW, "email": second}), 409, "email_taken")
    change = {"email": second, "current_password": PASSWORD}
    problem(api.as_(UserFactory()).patch("/me", change), 409, "email_taken")
    for email in (first, second, made.json()["email"]):
        signed_in = api.post("/auth/login", {"email": email, "password": PASSWORD})
        assert signed_in.json()["id"] == made.json()["id"]


def test_a_domain_with_a_sharp_s_differs_from_one_with_two_s(api):
    """IDNA 2003 would map the first domain to the second."""
    for email in ("sue@stra\u00dfe.example", "sue@strasse.example"):
        assert api.post("/auth/register", {**NEW, "email": email}).status_code == 201


@pytest.mark.parametrize("email", LOOKALIKES[:3])
def test_forms_of_the_admin_site_refuse_lookalikes(email):
    browser, user = Client(), UserFactory()
    browser.force_login(AdminFactory())
    form = {
        "email": email,
        "name": "Sue",
        "role": "user",
        "timezone": "UTC",
        "language": "en",
        "is_active": "on",
    }
    added = {**form, "password1": PASSWORD, "password2": PASSWORD, "usable_password": "true"}
    for path, fields in (("add", added), (f"{user.pk}/change", form)):
        response = browser.post(f"/admin/accounts/user/{path}/", fields)
        assert response.status_code == 200
        assert [*response.context["adminform"].form.errors] == ["email"]
    assert User.objects.count() == 2


def test_forms_of_the_admin_site_store_the_canonical_spelling():
    browser, user = Client(), UserFactory()
    browser.force_login(AdminFactory())
    form = {
        "email": "SUE@B\u00fccher.example",
        "name": "Sue",
        "role": "user",
        "timezone": "UTC",
        "language": "en",
    }
    path = f"/admin/accounts/user/{user.pk}/change/"
    assert browser.post(path, {**form, "is_active": "on"}).status_code == 302
    user.refresh_from_db()
    assert user.email == "sue@xn--bcher-kva.example"


def test_createsuperuser_refuses_lookalikes(monkeypatch):
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", PASSWORD)
    for email in LOOKALIKES[:3]:
        with pytest.raises(CommandError):
            call_command("createsuperuser", interactive=False, email=email, name="Sue")
    call_command("createsuperuser", interactive=False, email="SUE@b\u00fccher.example", name="S")
    assert User.objects.get().email == "sue@xn--bcher-kva.example"


@pytest.mark.parametrize("email", [*NON_ASCII, "sue@b\u00fccher.example", "sue\n@example.com"])
def test_the_database_refuses_email_addresses_that_are_not_printable_ascii(email):
    user = UserFactory()
    for write in (
        lambda: User.objects.filter(pk=user.pk).update(email=email),
        lambda: User.objects.create(email=email, name="Sue"),
        lambda: run("UPDATE accounts_user SET email = %s", [email]),
    ):
        with pytest.raises(IntegrityError, match="user_email_ascii"), transaction.atomic():
            write()


def test_the_email_address_of_an_attendee_is_stored_in_its_canonical_spelling(api):
    client, service = api.as_(UserFactory()), ServiceFactory(requires_confirmation=False)
    body = {"service_id": str(service.pk), "start_time": TUESDAY.isoformat()}
    for email in LOOKALIKES[:5]:
        response = client.post("/bookings", {**body, "attendee_email": email})
        problem(response, 400, "validation_error", "attendee_email")
    response = client.post("/bookings", {**body, "attendee_email": "Sue@b\u00fccher.example"})
    assert response.status_code == 201
    assert response.json()["attendee_email"] == "sue@xn--bcher-kva.example"


@given(
    st.builds(
        "{}@{}.{}".format,
        st.text(max_size=12),
        st.text(max_size=20),
        st.sampled_from(["example", "com", "\u4e2d\u56fd"]),
    )
)
@example("Sue@B\u00fccher.example")
# Conversion to upper case and back to lower case changes these letters.
@example("0@\u00df.example")
@example("0@\u03c2.example")
@example("0@\u0131.example")
# In NFKC, the upper case of an i with a combining dot is a single letter.
@example("0@i\u0307.example")
def test_a_canonical_spelling_is_not_changed_again(text):
    """Every accepted email address becomes ASCII, and `canonical` does not change the result."""
    try:
        spelled = canonical(text)
    except ValidationError:
        # `lookup_form` returns a spelling that no account can have.
        with pytest.raises(ValidationError):
            canonical(lookup_form(text))
        assert lookup_form(lookup_form(text)) == lookup_form(text)
        return
    assert spelled.isascii()
    assert spelled.isprintable()
    assert spelled == spelled.lower()
    assert canonical(spelled) == spelled == lookup_form(spelled)
    shouted = text.upper()
    if shouted.lower() == text.lower() and unicodedata.is_normalized("NFKC", shouted):
        assert lookup_form(shouted) == spelled
