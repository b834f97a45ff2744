"""Which tokens are valid, for how long, and how many times they can be used."""

import base64
import json
from collections import Counter
from datetime import timedelta
from uuid import uuid4

import jwt
import pytest
import time_machine
from django.conf import settings as configured
from django.db import connection
from django.test import Client
from django.utils.timezone import now
from rest_framework_simplejwt import state
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.serializers import TokenRefreshSerializer, api_settings
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken
from rest_framework_simplejwt.tokens import RefreshToken

from accounts.models import User
from accounts.sessions import services as sessions
from accounts.sessions.models import Session
from accounts.sessions.tokens import AccessToken
from accounts.tests.factories import PASSWORD, AdminFactory, UserFactory
from bookit.tests.crowd import at_once
from bookit.tests.expect import problem

pytestmark = pytest.mark.django_db


@pytest.fixture
def signed_in(api):
    """Return the body of the response to a login."""
    return log_in(api, UserFactory())


def log_in(api, user):
    response = api.post("/auth/login", {"email": user.email, "password": PASSWORD})
    assert response.status_code == 200, response.content
    return response.json()


def refresh(api, token):
    return api.post("/auth/refresh", {"refresh_token": token})


def me(api, token):
    return api.get("/me", headers={"authorization": f"Bearer {token}"})


def claims(token):
    return jwt.decode(token, options={"verify_signature": False})


def signed(content, key=None, algorithm="HS256"):
    """Return a token with these claims, signed with `key` (by default, with SECRET_KEY)."""
    return jwt.encode(content, key or configured.SECRET_KEY, algorithm)


def unsigned(content):
    """Return a token whose header says that it has no signature."""
    parts = ({"alg": "none", "typ": "JWT"}, content)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    return b".".join([*encoded, b""]).decode()


# --- refresh ----------------------------------------------------------------------------------


def test_a_refresh_token_is_exchanged_for_the_next_pair_of_tokens(api, signed_in):
    response = refresh(api, signed_in["refresh_token"])
    assert response.status_code == 200
    following = response.json()
    assert following.keys() == signed_in.keys()
    for name in ("access_token", "refresh_token"):
        assert following[name] != signed_in[name]
    assert {**following, "access_token": "", "refresh_token": ""} == {
        **signed_in,
        "access_token": "",
        "refresh_token": "",
    }
    assert me(api, following["access_token"]).json()["id"] == signed_in["id"]
    assert refresh(api, following["refresh_token"]).status_code == 200


def test_using_a_refresh_token_again_revokes_all_refresh_tokens_of_its_session(api, signed_in):
    chain = [signed_in["refresh_token"]]
    for _ in range(3):
        chain.append(refresh(api, chain[-1]).json()["refresh_token"])
    # Somebody uses a copy of an old token.
    problem(refresh(api, chain[1]), 401, "token_invalid")
    for token in chain:
        problem(refresh(api, token), 401, "token_invalid")


def test_using_a_refresh_token_again_leaves_other_sessions_of_the_user_alone(api):
    user = UserFactory()
    first, second = log_in(api, user), log_in(api, user)
    refresh(api, first["refresh_token"])
    problem(refresh(api, first["refresh_token"]), 401, "token_invalid")
    assert refresh(api, second["refresh_token"]).status_code == 200


def refresh_concurrently(token, clients):
    def call():
        return Client().post(
            "/auth/refresh", {"refresh_token": token}, content_type="application/json"
        )

    outcomes = at_once([call] * clients)
    assert [outcome.error for outcome in outcomes] == [None] * clients
    return [outcome.value for outcome in outcomes]


def test_one_of_ten_concurrent_refreshes_of_a_token_succeeds(transactional_db, api):
    """The second request reuses the token. This ends the session and revokes the new token too."""
    for _ in range(5):
        responses = refresh_concurrently(log_in(api, UserFactory())["refresh_token"], 10)
        assert Counter(response.status_code for response in responses) == {200: 1, 401: 9}
        [winner] = [response for response in responses if response.status_code == 200]
        for response in responses:
            if response is not winner:
                problem(response, 401, "token_invalid")
        problem(refresh(api, winner.json()["refresh_token"]), 401, "token_invalid")


def test_with_simplejwts_own_serializer_concurrent_refreshes_race(transactional_db, monkeypatch):
    """Control for the test above: several of ten concurrent refreshes succeed."""
    monkeypatch.setattr(api_settings, "ROTATE_REFRESH_TOKENS", True)
    monkeypatch.setattr(api_settings, "BLACKLIST_AFTER_ROTATION", True)
    for _ in range(20):
        token = str(RefreshToken.for_user(UserFactory()))

        def naive(token=token):
            serializer = TokenRefreshSerializer(data={"refresh": token})
            serializer.is_valid(raise_exception=True)
            return serializer.validated_data["refresh"]

        outcomes = at_once([naive] * 10)
        successors = [outcome.value for outcome in outcomes if outcome.error is None]
        if len(set(successors)) > 1:
            return
    pytest.fail("The race no longer happens, so this control shows nothing.")


def test_refreshing_updates_the_last_use_and_the_expiry_of_the_session(api, signed_in):
    later = now().replace(microsecond=0) + timedelta(hours=1)
    with time_machine.travel(later, tick=False):
        assert refresh(api, signed_in["refresh_token"]).status_code == 200
    row = Session.objects.get()
    assert row.last_used_at == later
    assert row.expires_at == later + timedelta(days=7)
    assert row.created_at < later


# --- lifetimes --------------------------------------------------------------------------------


def test_an_access_token_is_valid_for_a_quarter_of_an_hour(api):
    at = now()
    with time_machine.travel(at, tick=False):
        signed_in = log_in(api, UserFactory())
    assert signed_in["expires_in"] == 15 * 60
    with time_machine.travel(at + timedelta(minutes=15, seconds=-2), tick=False):
        assert me(api, signed_in["access_token"]).status_code == 200
    with time_machine.travel(at + timedelta(minutes=15, seconds=2), tick=False):
        problem(me(api, signed_in["access_token"]), 401, "token_invalid")


def test_a_refresh_token_is_valid_for_a_week(api):
    at = now()
    with time_machine.travel(at, tick=False):
        first, second = log_in(api, UserFactory()), log_in(api, UserFactory())
    with time_machine.travel(at + timedelta(days=7, seconds=-2), tick=False):
        assert refresh(api, first["refresh_token"]).status_code == 200
    with time_machine.travel(at + timedelta(days=7, seconds=2), tick=False):
        problem(refresh(api, second["refresh_token"]), 401, "token_invalid")


def test_a_web_server_whose_clock_is_behind_accepts_new_tokens(api):
    at, behind = now(), sessions.CLOCK_TOLERANCE - timedelta(seconds=5)
    with time_machine.travel(at, tick=False):
        signed_in = log_in(api, UserFactory())
    with time_machine.travel(at - behind, tick=False):
        assert me(api, signed_in["access_token"]).status_code == 200
        again = refresh(api, signed_in["refresh_token"])
        assert again.status_code == 200
    with time_machine.travel(at - 2 * behind, tick=False):
        assert me(api, again.json()["access_token"]).status_code == 200


# --- which tokens are valid -------------------------------------------------------------------


def test_access_tokens_and_refresh_tokens_cannot_replace_each_other(api, signed_in):
    problem(refresh(api, signed_in["access_token"]), 401, "token_invalid")
    response = api.post("/auth/logout", {"refresh_token": signed_in["access_token"]})
    problem(response, 401, "token_invalid")
    problem(me(api, signed_in["refresh_token"]), 401, "token_invalid")


def test_tokens_contain_ids_but_no_personal_data(signed_in):
    for name in ("access_token", "refresh_token"):
        assert claims(signed_in[name]).keys() == {
            *("token_type", "exp", "iat", "jti", "user_id", "session")
        }


ODD_ACCESS_CLAIMS: dict[str, dict[str, object]] = {
    "no user": {"user_id": None},
    "a user that is not text": {"user_id": 5},
    "a user that is a list": {"user_id": []},
    "a user that is an object": {"user_id": {}},
    "a user that is not an id": {"user_id": "nonsense"},
    "an empty user": {"user_id": ""},
    "a user with a null character": {"user_id": "\x00"},
    "a very long user": {"user_id": "1" * 5000},
    "a user who does not exist": {"user_id": str(uuid4())},
    "no type": {"token_type": None},
    "a wrong type": {"token_type": "refresh"},
    "another wrong type": {"token_type": "sliding"},
    "no expiry": {"exp": None},
    "an expiry in the past": {"exp": 1},
    "a negative expiry": {"exp": -1},
    "a huge expiry": {"exp": 10**18},
    "a still larger expiry": {"exp": 10**300},
    "an infinite expiry": {"exp": float("inf")},
    "an expiry that is not a number": {"exp": "tomorrow"},
    "an expiry that is a list": {"exp": []},
    "issued in the future": {"iat": 99999999999},
    "an issue time that is not a number": {"iat": "x"},
    "not valid until the far future": {"nbf": 99999999999},
    "no id": {"jti": None},
}


def altered(token, changes):
    content = {**claims(token), **changes}
    return {name: value for name, value in content.items() if value is not None}


@pytest.mark.parametrize("odd", ODD_ACCESS_CLAIMS)
def test_a_signed_access_token_with_odd_claims_is_a_401(api, signed_in, odd):
    content = altered(signed_in["access_token"], ODD_ACCESS_CLAIMS[odd])
    problem(me(api, signed(content)), 401, "token_invalid")
    problem(
        api.get("/services", headers={"authorization": f"Bearer {signed(content)}"}),
        401,
        "token_invalid",
    )


ODD_REFRESH_CLAIMS = {
    # The user of a refresh token is the user of its session, so its `user_id` is not read.
    **{odd: changes for odd, changes in ODD_ACCESS_CLAIMS.items() if "user_id" not in changes},
    "a wrong type": {"token_type": "access"},
    "no session": {"session": None},
    "a session that is not text": {"session": 5},
    "a session that is a list": {"session": ["x"]},
    "a session that is not an id": {"session": "nonsense"},
    "a session that does not exist": {"session": str(uuid4())},
    "an id that is not text": {"jti": 5},
    "an id that is an object": {"jti": {"a": 1}},
}


@pytest.mark.parametrize("odd", ODD_REFRESH_CLAIMS)
def test_a_signed_refresh_token_with_odd_claims_is_a_401(api, signed_in, odd):
    content = altered(signed_in["refresh_token"], ODD_REFRESH_CLAIMS[odd])
    for path in ("/auth/refresh", "/auth/logout"):
        problem(api.post(path, {"refresh_token": signed(content)}), 401, "token_invalid")


def test_a_signed_token_with_unaltered_claims_is_accepted(api, signed_in):
    """Control for the tests above: without odd claims, a token signed in the same way is valid."""
    assert me(api, signed(claims(signed_in["access_token"]))).status_code == 200
    assert refresh(api, signed(claims(signed_in["refresh_token"]))).status_code == 200


def test_a_token_with_a_wrong_signature_is_a_401(api, signed_in):
    for name, use in (("access_token", me), ("refresh_token", refresh)):
        content = claims(signed_in[name])
        head, body, signature = signed_in[name].split(".")
        for forged in (
            unsigned(content),
            signed(content, key="another key, of more than thirty-two bytes"),
            signed(content, algorithm="HS384"),
            f"{head}.{body}.",
            f"{head}.{body}",
            f"{head}.{body}.{signature[::-1]}",
            f"{head}.{body}.{signature}x",
            f"{head}.{body[:-2]}.{signature}",
            f".{body}.{signature}",
            f"{signed_in[name]}.{signature}",
        ):
            problem(use(api, forged), 401, "token_invalid")
        assert use(api, signed_in[name]).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Bearer  ",
        "Bearer a b",
        "Bearer a.b.c",
        "Bearer ...",
        "Bearer \xff",
        "Bearer é.é.é",
        "Bearer " + "x" * 8000,
        "Bearer " + "." * 8000,
        "Bearer null",
        "bearer nonsense",
        "BEARER nonsense",
    ],
)
def test_a_malformed_access_token_is_a_401(api, header):
    problem(api.get("/me", headers={"authorization": header}), 401, "token_invalid")


@pytest.mark.parametrize(
    "header", ["", "nonsense", "Basic YTpi", "Bearer: x", "Bearerx y", "Token x", "\x00"]
)
def test_a_header_without_the_bearer_scheme_is_not_authenticated(api, header):
    problem(api.get("/me", headers={"authorization": header}), 401, "not_authenticated")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
def test_the_scheme_ignores_case_and_extra_spaces(api, signed_in, scheme):
    header = f"{scheme} {signed_in['access_token']} "
    assert api.get("/me", headers={"authorization": header}).status_code == 200


@pytest.mark.parametrize("token", ["x", "a.b.c", "é", "...", "eyJhbGciOiJub25lIn0.e30."])
def test_a_malformed_refresh_token_is_a_401(api, token):
    problem(refresh(api, token), 401, "token_invalid")


@pytest.mark.parametrize("token", ["\u0000.", " "])
def test_a_blank_refresh_token_or_one_with_a_null_character_is_a_400(api, token):
    problem(refresh(api, token), 400, "validation_error", "refresh_token")


# --- what ends tokens -------------------------------------------------------------------------


def test_the_tokens_of_a_deactivated_user_stop_working_at_once(api):
    user = UserFactory()
    signed_in = log_in(api, user)
    admin = api.as_(AdminFactory())
    assert me(api, signed_in["access_token"]).status_code == 200
    assert admin.patch(f"/users/{user.pk}", {"is_active": False}).status_code == 200
    problem(me(api, signed_in["access_token"]), 401, "token_invalid")
    problem(refresh(api, signed_in["refresh_token"]), 401, "token_invalid")
    # After a reactivation, refresh tokens stay revoked, so a stolen one remains useless. An access
    # token works again until it expires.
    assert admin.patch(f"/users/{user.pk}", {"is_active": True}).status_code == 200
    problem(refresh(api, signed_in["refresh_token"]), 401, "token_invalid")
    assert me(api, signed_in["access_token"]).status_code == 200
    assert log_in(api, user)


def test_the_tokens_of_a_user_deactivated_by_a_bulk_update_stop_working_at_once(api):
    user = UserFactory()
    signed_in = log_in(api, user)
    User.objects.update(is_active=False)
    problem(refresh(api, signed_in["refresh_token"]), 401, "token_invalid")
    problem(me(api, signed_in["access_token"]), 401, "token_invalid")


def test_the_tokens_of_a_deleted_user_stop_working_at_once(api):
    user = UserFactory()
    signed_in = log_in(api, user)
    user.delete()
    problem(me(api, signed_in["access_token"]), 401, "token_invalid")
    problem(refresh(api, signed_in["refresh_token"]), 401, "token_invalid")
    problem(
        api.post("/auth/logout", {"refresh_token": signed_in["refresh_token"]}),
        401,
        "token_invalid",
    )


def test_a_new_role_applies_at_once(api):
    user = UserFactory()
    signed_in = log_in(api, user)
    header = {"authorization": f"Bearer {signed_in['access_token']}"}
    problem(api.get("/users", headers=header), 403, "permission_denied")
    User.objects.update(role=User.Role.ADMIN)
    assert api.get("/users", headers=header).status_code == 200


# --- what is stored ---------------------------------------------------------------------------


def test_no_table_contains_a_token(api, signed_in):
    following = refresh(api, signed_in["refresh_token"]).json()
    signatures = [
        token.rsplit(".", 1)[1]
        for response in (signed_in, following)
        for token in (response["access_token"], response["refresh_token"])
    ]
    tables = connection.introspection.table_names()
    assert "token_blacklist_outstandingtoken" in tables
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f'SELECT row_to_json(t)::text FROM "{table}" AS t')
            stored = "\n".join(text for (text,) in cursor)
            assert not [each for each in signatures if each in stored], table


def test_pruning_deletes_expired_sessions_and_tokens_and_leaves_the_rest(api):
    user = UserFactory()
    with time_machine.travel(now() - timedelta(days=10), tick=False):
        expired = log_in(api, user)
        refresh(api, expired["refresh_token"])
    with time_machine.travel(now() - timedelta(days=5), tick=False):
        living = log_in(api, user)
        following = refresh(api, living["refresh_token"]).json()
    assert (Session.objects.count(), OutstandingToken.objects.count()) == (2, 4)
    assert BlacklistedToken.objects.count() == 2
    assert sessions.prune_sessions(at=now()) == 1
    assert (Session.objects.count(), OutstandingToken.objects.count()) == (1, 2)
    assert BlacklistedToken.objects.count() == 1
    # A used token that has not expired is still marked as used.
    assert refresh(api, following["refresh_token"]).status_code == 200
    problem(refresh(api, living["refresh_token"]), 401, "token_invalid")


def test_pruning_keeps_a_session_whose_first_token_has_expired(api):
    with time_machine.travel(now() - timedelta(days=10), tick=False):
        old = log_in(api, UserFactory())
    with time_machine.travel(now() - timedelta(days=4), tick=False):
        young = refresh(api, old["refresh_token"]).json()
    assert sessions.prune_sessions(at=now()) == 0
    assert refresh(api, young["refresh_token"]).status_code == 200


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("token_blacklist_outstandingtoken", "expires_at"),
        ("accounts_emailedlink", "expires_at"),
        ("accounts_session", "expires_at"),
        ("django_session", "expire_date"),
    ],
)
def test_the_column_by_which_the_pruning_finds_expired_rows_has_an_index(table, column):
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexdef FROM pg_indexes WHERE tablename = %s", [table])
        assert any(f"({column})" in definition for (definition,) in cursor)


def test_a_request_reads_its_user_in_one_query(api, signed_in, django_assert_num_queries):
    with django_assert_num_queries(1):
        assert me(api, signed_in["access_token"]).status_code == 200


def test_simplejwt_does_not_raise_a_token_error_for_a_huge_expiry(signed_in):
    """Control for the tests of odd claims: it is not enough to catch `TokenError`."""
    content = altered(signed_in["refresh_token"], {"exp": 10**18})
    with pytest.raises(Exception) as caught:
        RefreshToken(signed(content))
    assert not isinstance(caught.value, TokenError)


def test_the_caching_backend_has_every_setting_of_simplejwts_own_backend():
    """`accounts.sessions.tokens` lists each setting, so a new setting could be forgotten."""
    theirs, ours = vars(state.token_backend), vars(AccessToken().token_backend)
    assert {name: ours[name] for name in theirs} == theirs
    assert ours.keys() - theirs.keys() == {"_verified"}
