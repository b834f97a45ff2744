"""The forms of accounts and staff roles in the admin site: their words, and what they refuse."""

import re
from html import unescape

import pytest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import strip_tags

from accounts.models import User
from accounts.privacy.services import erase_user
from accounts.roles.models import Role
from accounts.roles.services import create_role
from accounts.tests.factories import PASSWORD, AdminFactory, UserFactory, staff
from accounts.tests.hashing import while_a_password_is_hashed

pytestmark = pytest.mark.django_db

NEW_PASSWORD = "another good password"
ADD_USER, ADD_ROLE = reverse("admin:accounts_user_add"), reverse("admin:accounts_role_add")


@pytest.fixture
def site(client):
    client.force_login(AdminFactory())
    return client


def new_user(**changes):
    return {
        "email": "ada@example.com",
        "name": "Ada",
        "role": "user",
        "password1": PASSWORD,
        "password2": PASSWORD,
        **changes,
    }


def test_a_new_account_is_in_the_time_zone_of_the_admin_who_adds_it(client):
    client.force_login(AdminFactory(timezone="Europe/Lisbon"))
    assert client.post(ADD_USER, new_user()).status_code == 302
    assert User.objects.get(email="ada@example.com").timezone == "Europe/Lisbon"


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"email": "nonsense"}, "email", "Enter a valid email address."),
        ({"email": "TAKEN@example.com"}, "email", "already"),
        ({"email": "\0"}, "email", "Null characters are not allowed."),
        ({"email": f"{'a' * 300}@example.com"}, "email", "at most 254 characters"),
        ({"name": ""}, "name", "This field is required."),
        ({"name": "x" * 201}, "name", "at most 200 characters"),
        ({"role": "king"}, "role", "Select a valid choice."),
        ({"password1": "12345678", "password2": "12345678"}, "password2", "too common"),
        ({"password2": "something else"}, "password2", "match"),
    ],
)
def test_an_error_in_a_new_account_is_shown_at_its_field(site, changes, field, words):
    UserFactory(email="taken@example.com")
    response = site.post(ADD_USER, new_user(**changes))
    assert response.status_code == 200
    form = response.context["adminform"].form
    assert words in str(form.errors.get(field, ""))
    assert form["name"].value() == new_user(**changes)["name"]
    assert not User.objects.filter(email="ada@example.com").exists()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        *(({"phone": value}, "phone") for value in ("x", "\0", "9" * 400, "-1")),
        *(({"timezone": value}, "timezone") for value in ("Mars", "\0", "")),
        *(({"roles": [value]}, "roles") for value in ("No such role", "\0", "")),
        *(({"role": value}, "role") for value in ("king", "\0", "")),
        *(({"language": value}, "language") for value in ("xx", "\0", "")),
    ],
)
def test_an_error_in_an_account_is_shown_at_its_field(site, changes, field):
    user = UserFactory(name="Ada")
    sent = {
        "email": user.email,
        "name": "Grace",
        "role": "user",
        "timezone": "UTC",
        "language": "en",
        "is_active": "on",
        **changes,
    }
    response = site.post(reverse("admin:accounts_user_change", args=[user.pk]), sent)
    assert response.status_code == 200
    form = response.context["adminform"].form
    assert field in form.errors
    assert form["name"].value() == "Grace"
    user.refresh_from_db()
    assert user.name == "Ada"


def test_the_form_names_languages_and_keeps_a_stored_tag_that_is_not_listed(site):
    user = UserFactory(language="pt-BR")
    path = reverse("admin:accounts_user_change", args=[user.pk])
    shown = site.get(path).content.decode()
    assert '<option value="pt-BR" selected>pt-BR</option>' in shown
    assert '<option value="de">Deutsch</option>' in shown
    sent = {"email": user.email, "role": "user", "timezone": "UTC", "is_active": "on"}
    for language in ("pt-BR", "de"):
        response = site.post(path, {**sent, "name": user.name, "language": language})
        assert response.status_code == 302
        user.refresh_from_db()
        assert user.language == language


def test_an_account_is_described_in_words(site):
    user = UserFactory(timezone="Europe/Lisbon", new_email="new@example.com")
    text = site.get(reverse("admin:accounts_user_change", args=[user.pk])).content.decode()
    for words in (
        "the user wants to change it to new@example.com",
        "(Europe/Lisbon)",
        ">never<",  # signed in
        "May sign in",
        "There are none yet.",  # staff roles
        "Providers also manage their own calendars.",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("password", "words"), [(PASSWORD, "Reset password"), (None, "Set password")]
)
def test_the_button_says_whether_it_sets_the_first_password(site, password, words):
    user = UserFactory(password=password)
    text = site.get(reverse("admin:accounts_user_change", args=[user.pk])).content.decode()
    assert re.findall(r'<a role="button"[^>]*>([^<]*)</a>', text) == [words]


@pytest.mark.parametrize("permissions", [["view_user"], ["view_user", "change_user"]])
def test_only_admins_see_the_button_that_sets_a_password(client, permissions):
    user = UserFactory()
    page = reverse("admin:accounts_user_change", args=[user.pk])
    client.force_login(AdminFactory())
    assert "../password/" in client.get(page).content.decode()
    client.force_login(staff([f"accounts.{each}" for each in permissions]))
    text = client.get(page).content.decode()
    assert "password is set." in text
    assert "../password/" not in text
    assert client.get(reverse("admin:auth_user_password_change", args=[user.pk])).status_code == 403


def new_password(**more):
    return {"password1": NEW_PASSWORD, "password2": NEW_PASSWORD, "usable_password": "true", **more}


OWN_PASSWORD = {
    "old_password": PASSWORD,
    "new_password1": NEW_PASSWORD,
    "new_password2": NEW_PASSWORD,
}


def test_users_change_their_own_password_by_the_rules_of_the_api(client):
    client.force_login(user := AdminFactory())
    page = client.get("/admin/password_change/").content.decode()
    assert page.count('type="password"') == 3
    for changes, message in [
        ({"old_password": "wrong"}, "This is not your current password."),
        ({"new_password2": "something else"}, "The two password fields"),
        ({"new_password1": "short", "new_password2": "short"}, "This password is too short."),
    ]:
        response = client.post("/admin/password_change/", {**OWN_PASSWORD, **changes})
        assert message in response.content.decode()
    assert client.post("/admin/password_change/", OWN_PASSWORD).status_code == 302
    user.refresh_from_db()
    assert user.check_password(NEW_PASSWORD)
    assert client.get("/admin/password_change/done/").status_code == 200


@pytest.mark.parametrize(
    ("more", "usable"), [({}, True), ({"usable_password": "false", "unset-password": "1"}, False)]
)
def test_an_admin_who_sets_a_password_changes_nothing_else(site, monkeypatch, more, usable):
    user = UserFactory(name="Ana")
    while_a_password_is_hashed(
        monkeypatch,
        lambda: User.objects.filter(pk=user.pk).update(name="Ana Silva", is_active=False),
    )
    page = reverse("admin:auth_user_password_change", args=[user.pk])
    assert site.post(page, new_password(**more)).status_code == 302
    user.refresh_from_db()
    assert (user.name, user.is_active) == ("Ana Silva", False)
    assert user.check_password(NEW_PASSWORD) == user.has_usable_password() == usable


def test_setting_a_password_does_not_bring_back_an_account_that_is_being_deleted(site, monkeypatch):
    user = UserFactory(name="Ana", email="ana@example.com")
    while_a_password_is_hashed(
        monkeypatch, lambda: erase_user(user_id=user.pk, actor=AdminFactory(), at=timezone.now())
    )
    page = reverse("admin:auth_user_password_change", args=[user.pk])
    response = site.post(page, new_password(), follow=True)
    assert "somebody has deleted it" in unescape(response.content.decode())
    user.refresh_from_db()
    assert user.deleted_at
    assert user.name == ""
    assert not user.has_usable_password()


def test_staff_who_may_not_change_an_account_see_the_names_of_its_roles(client):
    client.force_login(staff(["accounts.view_user"]))
    holder = staff(["bookings.view_booking"])
    for user, names in [(holder, holder.roles), (UserFactory(), ["-"])]:
        text = client.get(reverse("admin:accounts_user_change", args=[user.pk])).content.decode()
        [roles] = re.findall(r'field-roles">.*?<label>(.*?)</div>\s*</div>', text, re.DOTALL)
        assert strip_tags(roles).split() == ["Staff", "roles:", *" ".join(names).split()]


def test_the_permissions_of_a_role_are_grouped_and_in_words(site):
    text = unescape(site.get(ADD_ROLE).content.decode())
    assert "<legend>Bookings and slots</legend>" in text
    assert "See all bookings and their history <code>bookings.view_booking</code>" in text
    # Only admins can have webhooks, so no role can contain this permission.
    assert "bookings.view_webhook" not in text


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 151}, "name"),
        ({"name": "Reception"}, "name"),
        ({"name": "\0"}, "name"),
        ({"description": "x" * 5000}, "description"),
        ({"permissions": ["bookings.view_webhook"]}, "permissions"),
        ({"permissions": ["\0"]}, "permissions"),
    ],
)
def test_an_error_in_a_role_is_shown_at_its_field(site, changes, field):
    view = ["bookings.view_booking"]
    create_role(name="Reception", permissions=view, actor=AdminFactory(), at=timezone.now())
    sent = {"name": "Night shift", "permissions": ["bookings.add_booking"], **changes}
    response = site.post(ADD_ROLE, sent)
    assert response.status_code == 200
    form = response.context["adminform"].form
    assert field in form.errors
    assert form["permissions"].value() == sent["permissions"]
    assert Role.objects.count() == 1
