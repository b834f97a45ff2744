"""No request to the admin site gets a 500, however invalid the request is."""

import os
import re

import pytest
from django.contrib import admin
from django.urls import reverse

from accounts.tests.factories import PASSWORD
from bookit.adminsite.extensions import PAGES
from bookit.adminsite.links import list_of
from bookit.adminsite.tests.crawler import UUID, Crawler, Form
from catalog.admin import CalendarAdmin, ServiceAdmin, ServiceForm
from catalog.models import Service

pytestmark = pytest.mark.django_db(transaction=True)

# The number of wrong requests for each kind of page, parameter, field and action. 0 means every
# wrong request that the crawler knows, which takes about ten minutes.
EACH = int(os.environ.get("CRAWL", 1))

MODELS = sorted(admin.site._registry, key=lambda model: model._meta.label)
every_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.label)

AUTOCOMPLETE = "/admin/autocomplete/"
LOGIN, LOGOUT = "/admin/login/", "/admin/logout/"


@pytest.fixture
def crawler(boss, world, monkeypatch) -> Crawler:
    # The sidebar with all models is the same on every page. Rendering it takes longer than the
    # rest of the page.
    monkeypatch.setattr(admin.site, "enable_nav_sidebar", False)
    return Crawler(boss, EACH)


def crawl_model(crawler, model) -> None:
    """Send wrong requests to all pages of a model."""
    start = list_of(model)
    pages = crawler.crawl(start, inside=(start, AUTOCOMPLETE))
    crawler.try_each(crawler.wrong_ids(pages))
    crawler.try_each(crawler.wrong_parameters(pages))
    crawler.try_each(crawler.wrong_forms(pages))
    crawler.try_each(crawler.wrong_actions(start, pages[start]))


def assert_no_complaints(crawler) -> None:
    assert crawler.complaints == {}, "\n".join(
        f"{what}\n    {command[:300]}" for what, command in crawler.complaints.items()
    )


@every_model
def test_no_link_form_or_action_of_a_model_fails(crawler, model):
    crawl_model(crawler, model)
    assert_no_complaints(crawler)
    assert len(crawler.subjects) >= 25, sorted(crawler.subjects)


def test_the_pages_that_belong_to_no_model_do_not_fail(crawler):
    apps = sorted({model._meta.app_label for model in MODELS})
    names = ["index", "password_change", "password_change_done", "jsi18n"]
    starts = [reverse(f"admin:{name}") for name in names]
    starts += [page.path for page in PAGES.values() if page.path.startswith("/admin/")]
    starts += [reverse("admin:app_list", args=[app]) for app in apps]
    pages = crawler.crawl(*starts)
    assert {*starts} == {*pages}
    crawler.try_each(crawler.wrong_parameters(pages))
    crawler.try_each(crawler.wrong_forms(pages))
    crawler.try_each(crawler.wrong_form(Form(LOGOUT, "post", [("next", "/admin/")])))
    assert_no_complaints(crawler)


def test_the_sign_in_form_does_not_fail(boss):
    crawler = Crawler(boss, EACH, signed_in=False)
    pages = crawler.crawl(f"{LOGIN}?next=/admin/", inside=(LOGIN,))
    [page] = pages.values()
    filled = {"username": boss.email, "password": PASSWORD}
    for form in page.forms:
        form.fields = [(name, filled.get(name, value)) for name, value in form.fields]
    assert {name for form in page.forms for name, _ in form.fields} >= {*filled, "next"}
    crawler.try_each(crawler.wrong_parameters(pages))
    crawler.try_each(crawler.wrong_forms(pages))
    assert_no_complaints(crawler)


def test_the_crawler_finds_pages_that_fail_for_wrong_requests(crawler, monkeypatch):
    """Control for the tests above: parts of the pages are broken, but only for wrong requests."""

    def break_for(owner, name, is_wrong):
        whole = getattr(owner, name)

        def broken(self, *args, **options):
            if is_wrong(self, *args):
                raise RuntimeError
            return whole(self, *args, **options)

        monkeypatch.setattr(owner, name, broken)

    break_for(ServiceAdmin, "get_object", lambda page, request, pk, *rest: not UUID.fullmatch(pk))
    break_for(ServiceAdmin, "get_ordering", lambda page, request: request.GET.get("p", "1") != "1")
    break_for(ServiceForm, "clean", lambda form: form.data.get("category") != "Barber")
    break_for(
        ServiceAdmin,
        "response_action",
        lambda page, request, rows: "delete_selected" in request.POST.getlist("action"),
    )
    break_for(
        CalendarAdmin,
        "get_search_results",
        lambda page, request, rows, term: request.path == AUTOCOMPLETE and term != "a",
    )
    Service.objects.update(category="Barber")
    crawl_model(crawler, Service)
    found = {
        re.sub(r"/[^/]+/(change|delete|history)/", r"/ID/\1/", each) for each in crawler.complaints
    }
    assert found >= {
        "500 GET /admin/catalog/service/",
        "500 POST /admin/catalog/service/",
        "500 GET /admin/autocomplete/",
        "500 POST /admin/catalog/service/ID/change/",
        "500 GET /admin/catalog/service/ID/change/",
        "500 GET /admin/catalog/service/ID/delete/",
        "500 GET /admin/catalog/service/ID/history/",
    }
