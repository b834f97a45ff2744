"""No page of the admin site shows a secret, and no list searches, filters or orders by one."""

import re
from urllib.parse import parse_qsl

import pytest
from django.contrib import admin
from django.contrib.admin.utils import get_fields_from_path
from django.db import connection
from django.db.models import Field
from django.urls import reverse
from procrastinate.contrib.django.models import ProcrastinateJob
from rest_framework_simplejwt.token_blacklist.models import OutstandingToken

from accounts.models import User
from accounts.tests.factories import PASSWORD, UserFactory
from bookings.mails.models import MailText
from bookings.tests.factories import DeliveryFactory, WebhookFactory
from bookings.webhooks.models import Delivery, Webhook
from bookit.adminsite.links import list_of
from bookit.adminsite.pages import StrictAdmin
from bookit.adminsite.tests.addresses import url_of

pytestmark = pytest.mark.django_db

PAGES = dict(sorted(admin.site._registry.items(), key=lambda item: item[0]._meta.label))
every_page = pytest.mark.parametrize("model", PAGES, ids=lambda model: model._meta.label)

# Columns that nobody may read, not even through a relation.
SECRETS = {"password", "secret", "previous_secret", "token", "digest", "token_hash"}
# A few of the lookups of Django's ORM.
LOOKUPS = ["", "exact", "startswith", "regex", "gt", "gte", "lt", "in", "contains", "isnull"]
# The lookups in the links of Django's filters.
LINKED_LOOKUPS = {"", "exact", "isnull", "gte", "lt"}


def reachable(model, depth=3):
    """Yield each path of up to `depth` fields that starts at `model`, with its last field."""
    for field in model._meta.get_fields():
        yield field.name, field
        if isinstance(field, Field):
            yield field.attname, field
        if field.is_relation and field.related_model and depth > 1:
            for rest, last in reachable(field.related_model, depth - 1):
                yield f"{field.name}__{rest}", last


def filter_parameters(page):
    """Return the names of the parameters in the links of a list's filters and dates."""
    links = re.findall(r'href="\?([^"]*)"', page)
    names = {name for link in links for name, _ in parse_qsl(link.replace("&amp;", "&"), True)}
    return names - {"o", "p", "q", "all", "e", "_facets", "_popup", "_to_field"}


def test_every_model_admin_is_strict():
    assert [page for page in PAGES.values() if not isinstance(page, StrictAdmin)] == []


@every_page
def test_the_links_of_a_lists_filters_work(site, world, model):
    page = site.get(list_of(model))
    names = filter_parameters(page.content.decode())
    # The list of the kinds of emails is short, so it shows no filters.
    assert names or model is MailText
    for link in re.findall(r'href="(\?[^"]*)"', page.content.decode()):
        assert site.get(list_of(model) + link.replace("&amp;", "&")).status_code == 200, link


@every_page
def test_a_list_allows_only_the_lookups_of_its_own_filters(rf, model):
    """Try each of the `LOOKUPS` on each path of up to three fields."""
    page = PAGES[model]
    names = [each[0] if isinstance(each, tuple) else each for each in page.list_filter]
    linked = {each.rpartition("__")[0] for each in page.link_filters}
    filtered = {*names, *linked, page.date_hierarchy}
    tried = 0
    for path, _ in reachable(model):
        for lookup in LOOKUPS:
            name = f"{path}__{lookup}" if lookup else path
            tried += 1
            if page.lookup_allowed(name, "x", rf.get("/")):
                # Django filters by a relation through the id of the related row.
                assert {path, path.removesuffix("__id")} & filtered, name
                assert lookup in LINKED_LOOKUPS or name in page.link_filters, name
    assert tried >= 100


@every_page
def test_a_list_can_be_filtered_by_whether_a_field_is_empty(site, world, rf, model):
    """A list allows the lookup `isnull` for its filters, even if no link contains `isnull`."""
    allowed = {
        name
        for path, _ in reachable(model, depth=2)
        if PAGES[model].lookup_allowed(name := f"{path}__isnull", "1", rf.get("/"))
    }
    assert allowed
    for name in allowed:
        for value in ("1", "0"):
            assert site.get(list_of(model), {name: value}).status_code == 200, name


def test_the_reachable_paths_contain_the_secrets():
    """Control for the tests of filters: `reachable` yields the paths that lead to secrets."""
    paths = {f"{model.__name__}.{path}" for model in PAGES for path, _ in reachable(model)}
    assert paths >= {
        "ApiKey.digest",
        "User.api_keys__digest",
        "Webhook.secret",
        "Delivery.webhook__secret",
        "BookingEvent.deliveries__webhook__secret",
        "Session.user__password",
        "Booking.user__password",
        "Review.booking__user__password",
        "Calendar.provider__password",
        "BlacklistedToken.token__token",
        "BlacklistedToken.token__user__password",
    }


@every_page
def test_a_list_cannot_be_filtered_by_a_secret(site, world, model):
    paths = [
        path for path, field in reachable(model) if field.name in SECRETS and not field.is_relation
    ]
    for path in paths:
        for lookup in ("", "__startswith", "__regex", "__gt", "__isnull"):
            response = site.get(list_of(model), {f"{path}{lookup}": "a"})
            assert response.status_code == 400, path


def test_no_filter_can_tell_two_secrets_apart(site):
    """If filters on secrets worked, row counts would reveal a secret letter by letter."""
    for secret in ("whsec_A", "whsec_B"):
        DeliveryFactory(webhook=WebhookFactory(secret=secret))
    for model, path in [(Webhook, "secret"), (Delivery, "webhook__secret")]:
        responses = {
            site.get(list_of(model), {f"{path}__startswith": f"whsec_{letter}"}).status_code
            for letter in "ABC"
        }
        assert responses == {400}


def test_no_search_finds_a_secret(site, world):
    secrets = secret_values()
    assert len(secrets) >= 4
    for model, page in PAGES.items():
        for path in page.search_fields:
            assert get_fields_from_path(model, path)[-1].name not in SECRETS
        for value in secrets:
            found = site.get(list_of(model), {"q": value[:20]}).context["cl"].result_count
            assert found == 0, (model, value)


def secret_values():
    """Return values of columns that nobody may read."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT password FROM accounts_user"
            " UNION SELECT secret FROM bookings_webhook"
            " UNION SELECT previous_secret FROM bookings_webhook"
            " UNION SELECT session_key FROM django_session"
        )
        return [value for (value,) in cursor.fetchall() if value]


@every_page
def test_no_list_can_be_ordered_by_a_secret(site, world, model):
    response = site.get(list_of(model))
    changes = response.context["cl"]
    columns = [changes.get_ordering_field(column) for column in changes.list_display]
    default = PAGES[model].get_ordering(response.wsgi_request)
    for path in [*columns, *default, *model._meta.ordering]:
        if isinstance(path, str):
            field = get_fields_from_path(model, path.lstrip("-"))[-1]
            assert field.is_relation or field.name not in SECRETS


@every_page
def test_no_page_shows_a_secret(site, world, model):
    Webhook.objects.update(previous_secret="whsec_the-one-before")
    secrets = secret_values()
    row = model.objects.first()
    pages = [list_of(model), f"{list_of(model)}?all=1"]
    pages += [url_of(model, name, row.pk) for name in ("change", "history", "delete")]
    for path in pages:
        response = site.get(path)
        assert response.status_code in (200, 403)
        text = response.content.decode()
        for value in secrets:
            # Not even the beginning of a secret may be shown: guesses could be compared with it.
            # A password hash follows its algorithm and its salt, which end in `$`.
            secret = value.rpartition("$")[2]
            assert secret[:6] not in text, (path, value)


@pytest.mark.real_passwords
def test_the_page_of_a_user_shows_no_part_of_the_password_hash(site):
    user = UserFactory(password=PASSWORD)
    page = site.get(reverse("admin:accounts_user_change", args=[user.pk])).content.decode()
    assert "A password is set." in page
    salt, value = user.password.split("$")[-2:]
    assert salt[:6] not in page
    assert value[:6] not in page
    User.objects.filter(pk=user.pk).update(password="!")
    page = site.get(reverse("admin:accounts_user_change", args=[user.pk])).content.decode()
    assert "No password is set." in page


def test_a_popup_list_cannot_return_a_secret(site, world):
    for model, name in [(Webhook, "secret"), (User, "password"), (OutstandingToken, "token")]:
        response = site.get(list_of(model), {"_popup": 1, "_to_field": name})
        assert response.status_code == 400


def test_the_page_of_a_job_does_not_show_the_text_of_an_email(site):
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO procrastinate_jobs (task_name, queue_name, args)"
            """ VALUES ('x', 'default', '{"mail": {"text": "Dear Ada"}, "event_id": 7}')"""
        )
    pages = "/admin/procrastinate/procrastinatejob/"
    assert "Dear Ada" not in site.get(pages).content.decode()
    page = site.get(f"{pages}{ProcrastinateJob.objects.get().pk}/change/").content.decode()
    assert "Dear Ada" not in page
    assert "event_id&quot;: 7" in page
