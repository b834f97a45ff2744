"""Staff roles: what they permit in the API, who may give them, and where they are shown."""

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from accounts.extensions import PERMISSIONS
from accounts.models import User
from accounts.roles.models import Role
from accounts.tests.factories import PASSWORD, AdminFactory, ProviderFactory, UserFactory, staff
from bookings.tests.factories import BookingFactory
from bookit.tests.crowd import behind_a_rival
from bookit.tests.expect import problem
from catalog.tests.factories import ServiceFactory

pytestmark = pytest.mark.django_db

RECEPTION = ["bookings.change_booking", "bookings.view_booking"]
MANAGER = ["accounts.view_user", "accounts.change_user", "accounts.view_role"]
MANAGER += ["accounts.add_role", "accounts.change_role", "accounts.delete_role"]


@pytest.fixture
def admin(api):
    return api.as_(AdminFactory())


def create(client, name="Reception", permissions=RECEPTION):
    response = client.post("/roles", {"name": name, "permissions": permissions})
    assert response.status_code == 201, response.content
    return response.json()


def give(client, user, *names):
    return client.patch(f"/users/{user.pk}", {"roles": names})


# --- roles ------------------------------------------------------------------------------------


def test_a_role_is_created_shown_changed_and_deleted(admin):
    body = {"name": "Reception", "description": "At the door", "permissions": RECEPTION[::-1]}
    response = admin.post("/roles", body)
    role = response.json()
    assert response.status_code == 201
    assert response["Location"].endswith(f"/roles/{role['id']}")
    assert list(role) == ["id", "name", "description", "permissions", "created_at", "updated_at"]
    assert role["permissions"] == RECEPTION
    assert admin.get(f"/roles/{role['id']}").json() == role
    assert admin.get("/roles").json()["results"] == [role]

    changes = {"name": "Front desk", "permissions": ["bookings.view_booking"]}
    changed = admin.patch(f"/roles/{role['id']}", changes)
    assert changed.json() == {**role, **changes, "updated_at": changed.json()["updated_at"]}
    assert admin.get(f"/roles/{role['id']}").json() == changed.json()

    assert admin.delete(f"/roles/{role['id']}").status_code == 204
    problem(admin.get(f"/roles/{role['id']}"), 404, "not_found")


@pytest.mark.parametrize(
    "change",
    [{"name": "Front desk"}, {"description": "Inside"}, {"permissions": RECEPTION[:1]}],
)
def test_a_role_that_has_changed_since_it_was_read_is_not_overwritten(admin, change):
    path = f"/roles/{create(admin)['id']}"
    etag = admin.get(path)["ETag"]
    changed = admin.patch(path, change, headers={"If-Match": etag})
    assert changed.status_code == 200
    for response in (
        admin.patch(path, {"name": "Doormen"}, headers={"If-Match": etag}),
        admin.delete(path, headers={"If-Match": etag}),
    ):
        problem(response, 412, "precondition_failed")
    assert admin.get(path).json() == changed.json()
    assert admin.delete(path, headers={"If-Match": changed["ETag"]}).status_code == 204


def test_a_change_of_a_users_roles_changes_the_version_of_the_user(admin):
    """Otherwise, two admins who read the same user could undo each other's changes."""
    create(admin)
    user = UserFactory()
    path = f"/users/{user.pk}"
    read = admin.get(path)
    roles = {"roles": ["Reception"]}
    changed = admin.patch(path, roles, headers={"If-Match": read["ETag"]})
    assert changed.status_code == 200
    assert changed.json()["updated_at"] > read.json()["updated_at"]
    assert changed.json() == admin.get(path).json()
    response = admin.patch(path, {"roles": []}, headers={"If-Match": read["ETag"]})
    problem(response, 412, "precondition_failed")
    # This request changes nothing, so the version stays the same.
    assert admin.patch(path, roles).json() == changed.json()


def test_the_name_of_a_role_is_unique(admin):
    create(admin)
    other = create(admin, "Cleaner", [])
    response = admin.post("/roles", {"name": "Reception", "permissions": []})
    problem(response, 400, "validation_error", "name")
    response = admin.patch(f"/roles/{other['id']}", {"name": "Reception"})
    problem(response, 400, "validation_error", "name")
    assert admin.get(f"/roles/{other['id']}").json()["name"] == "Cleaner"


@pytest.mark.parametrize(
    "name", ["bookings.fly", "auth.add_group", "bookings.add_webhook", "", "a.b.c", "nothing"]
)
def test_a_permission_that_no_role_can_contain_is_refused(admin, name):
    response = admin.post("/roles", {"name": "Pilot", "permissions": [name]})
    problem(response, 400, "validation_error")
    assert not Role.objects.exists()


def test_every_permission_of_a_role_is_known_to_django(admin):
    """A misspelt permission would be missing from the role."""
    names = sorted(name for name, each in PERMISSIONS.items() if each.in_roles)
    assert create(admin, "Everything", names)["permissions"] == names


def test_the_list_of_roles_takes_two_queries_however_many_there_are(admin):
    for number in range(12):
        create(admin, f"Role {number}")
        with CaptureQueriesContext(connection) as captured:
            assert admin.get("/roles?limit=100").json()["count"] == number + 1
        assert len(captured) == 2


# --- users with roles -------------------------------------------------------------------------


def test_a_user_has_the_permissions_of_all_their_roles_from_the_next_request_on(api, admin):
    user, booking = UserFactory(), BookingFactory()
    client = api.as_(user)
    problem(client.get(f"/bookings/{booking.pk}"), 403, "permission_denied")

    create(admin)
    create(admin, "Accounts", ["accounts.view_user"])
    response = give(admin, user, "Reception", "Accounts")
    assert response.json()["roles"] == ["Accounts", "Reception"]
    assert client.get(f"/bookings/{booking.pk}").status_code == 200
    assert client.get("/bookings").json()["count"] == 1
    assert client.get("/users").status_code == 200

    assert give(admin, user, "Accounts").json()["roles"] == ["Accounts"]
    problem(client.get(f"/bookings/{booking.pk}"), 403, "permission_denied")
    assert client.get("/bookings").json()["count"] == 0


def test_a_changed_or_deleted_role_applies_to_its_holders_at_once(api, admin):
    booking = BookingFactory()
    role, user = create(admin), UserFactory()
    give(admin, user, "Reception")
    path = f"/bookings/{booking.pk}"
    assert api.as_(user).patch(path, {}).status_code == 200
    admin.patch(f"/roles/{role['id']}", {"permissions": ["bookings.view_booking"]})
    assert api.as_(user).get(path).status_code == 200
    for body in (
        {"status": "confirmed"},
        {"status": "cancelled"},
        {},
        {"start_time": "2999-01-05T10:00:00Z"},
    ):
        problem(api.as_(user).patch(path, body), 403, "permission_denied")
    admin.delete(f"/roles/{role['id']}")
    problem(api.as_(user).get(path), 403, "permission_denied")


def test_a_role_can_be_deleted_while_it_is_being_given_to_a_user(transactional_db, admin):
    path, user = f"/roles/{create(admin)['id']}", UserFactory()
    [outcome] = behind_a_rival(
        [lambda: admin.delete(path)],
        rival=lambda: give(admin, user, "Reception"),
        end=transaction.commit,
    )
    assert outcome.value.status_code == 204
    assert admin.get(f"/users/{user.pk}").json()["roles"] == []


def test_a_role_that_is_being_deleted_cannot_be_given_to_a_user(transactional_db, admin):
    path, user = f"/roles/{create(admin)['id']}", UserFactory()
    [outcome] = behind_a_rival(
        [lambda: give(admin, user, "Reception")],
        rival=lambda: admin.delete(path),
        end=transaction.commit,
    )
    problem(outcome.value, 400, "validation_error", "roles")


def test_roles_are_shown_in_profiles_and_lists_and_when_signing_in(api, admin):
    create(admin)
    user = UserFactory()
    give(admin, user, "Reception")
    assert api.as_(user).get("/me").json()["roles"] == ["Reception"]
    assert admin.get(f"/users/{user.pk}").json()["roles"] == ["Reception"]
    shown = {row["id"]: row["roles"] for row in admin.get("/users").json()["results"]}
    assert shown.pop(str(user.pk)) == ["Reception"]
    assert set(map(tuple, shown.values())) == {()}
    session = api.post("/auth/login", {"email": user.email, "password": PASSWORD})
    assert session.json()["roles"] == ["Reception"]


def test_an_unknown_role_is_refused_and_nothing_changes(admin):
    user = UserFactory(name="Ana")
    response = admin.patch(f"/users/{user.pk}", {"name": "Eve", "roles": ["Pilot"]})
    problem(response, 400, "validation_error", "roles")
    assert admin.get(f"/users/{user.pk}").json()["name"] == "Ana"


def test_a_role_of_a_deactivated_user_permits_nothing(api):
    user = staff(RECEPTION, is_active=False)
    assert not user.may("bookings.view_booking")
    assert not user.is_staff
    problem(api.as_(user).get("/bookings"), 401, "token_invalid")


def test_users_without_roles_need_no_query_for_roles(api):
    user, receptionist = UserFactory(), staff(RECEPTION)

    def queries(client, path):
        with CaptureQueriesContext(connection) as captured:
            assert client.get(path).status_code == 200
        return [query["sql"] for query in captured]

    for path, maximum in (("/me", 1), ("/bookings", 3), ("/services", 3)):
        alone = queries(api.as_(user), path)
        assert len(alone) <= maximum, path
        assert not [sql for sql in alone if 'FROM "auth_' in sql], path
        # Roles take at most one more query: for their permissions, or for their names.
        held = queries(api.as_(receptionist), path)
        assert len(held) <= len(alone) + 1, path
        assert [sql for sql in held if 'FROM "auth_' in sql], path


def test_staff_may_book_for_other_users_only_with_the_permission(api):
    service = ServiceFactory()
    body = {"service_id": str(service.pk), "start_time": "2999-01-03T10:00:00Z"}
    body["user_id"] = str(UserFactory().pk)
    problem(api.as_(staff(RECEPTION)).post("/bookings", body), 403, "permission_denied")
    response = api.as_(staff(["bookings.add_booking"])).post("/bookings", body)
    assert response.status_code == 201
    assert response.json()["user_id"] == body["user_id"]


def test_staff_work_on_all_calendars_but_do_not_become_providers(api):
    service = ServiceFactory()
    client = api.as_(staff(["catalog.change_service", "catalog.add_calendar"]))
    assert client.patch(f"/services/{service.pk}", {"title": "Shave"}).status_code == 200
    problem(client.delete(f"/services/{service.pk}"), 403, "permission_denied")
    provider = ProviderFactory()
    created = client.post("/calendars", {"name": "Room", "provider_id": str(provider.pk)})
    assert created.status_code == 201
    me = client.get("/me").json()["id"]
    response = client.post("/calendars", {"name": "Mine", "provider_id": me})
    problem(response, 400, "validation_error", "provider_id")
    assert client.post("/calendars", {"name": "Nobody's"}).json()["provider_id"] is None


# --- who may give what ------------------------------------------------------------------------


@pytest.fixture
def manager(api):
    """Return the client of a user who may only manage roles and accounts, and view bookings."""
    return api.as_(staff([*MANAGER, "bookings.view_booking"]))


def test_a_manager_cannot_give_a_role_permissions_that_the_manager_lacks(admin, manager):
    body = {"name": "Reception", "permissions": RECEPTION}
    assert (
        "bookings.change_booking"
        in problem(manager.post("/roles", body), 403, "permission_denied")["detail"]
    )
    role = create(manager, "Readers", ["bookings.view_booking"])
    response = manager.patch(f"/roles/{role['id']}", {"permissions": RECEPTION})
    problem(response, 403, "permission_denied")
    # A manager cannot change or delete a role with permissions that the manager does not have.
    stronger = create(admin)
    for response in (
        manager.patch(f"/roles/{stronger['id']}", {"permissions": []}),
        manager.patch(f"/roles/{stronger['id']}", {"name": "Nothing"}),
        manager.delete(f"/roles/{stronger['id']}"),
    ):
        problem(response, 403, "permission_denied")
    assert manager.delete(f"/roles/{role['id']}").status_code == 204


def test_a_manager_cannot_give_a_user_permissions_that_the_manager_lacks(api, admin, manager):
    create(admin)
    create(manager, "Readers", ["bookings.view_booking"])
    user = UserFactory()
    problem(give(manager, user, "Reception"), 403, "permission_denied")
    me = User.objects.get(pk=manager.get("/me").json()["id"])
    problem(give(manager, me, *me.roles, "Reception"), 403, "permission_denied")
    assert give(manager, user, "Readers").json()["roles"] == ["Readers"]
    # A manager cannot take away permissions that the manager does not have.
    give(admin, user, "Readers", "Reception")
    problem(give(manager, user, "Readers"), 403, "permission_denied")
    assert api.as_(user).get("/me").json()["roles"] == ["Readers", "Reception"]


@pytest.mark.parametrize("change", [{"role": "provider"}, {"role": "admin"}])
def test_only_admins_change_the_role_of_an_account(manager, change):
    user = UserFactory()
    problem(manager.patch(f"/users/{user.pk}", change), 403, "permission_denied")
    assert manager.patch(f"/users/{user.pk}", {"role": "user", "name": "Eve"}).status_code == 200


@pytest.mark.parametrize("is_active", [True, False])
def test_only_admins_change_the_account_of_an_admin(manager, is_active):
    boss = AdminFactory(is_active=is_active)
    for change in ({"is_active": not is_active}, {"name": "Eve"}, {"roles": []}):
        problem(manager.patch(f"/users/{boss.pk}", change), 403, "permission_denied")


def test_a_manager_does_not_change_staff_with_permissions_that_the_manager_lacks(manager):
    stronger = staff(RECEPTION)
    for change in ({"is_active": False}, {"name": "Eve"}):
        response = manager.patch(f"/users/{stronger.pk}", change)
        detail = problem(response, 403, "permission_denied")["detail"]
        assert detail.startswith("You cannot change an account that has permissions that you do")
        assert "bookings.change_booking" in detail
    weaker = staff(["bookings.view_booking"])
    assert manager.patch(f"/users/{weaker.pk}", {"is_active": False}).status_code == 200
