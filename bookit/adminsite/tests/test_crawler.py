"""No address and no form of the admin site answers with a 500, whatever is sent to it."""

import os

import pytest
from django.contrib import admin
from django.urls import reverse

from bookit.adminsite.tests.crawler import Crawler

pytestmark = pytest.mark.django_db(transaction=True)

# So many requests of each kind; 0 is all there are, which takes some ten minutes.
EACH = int(os.environ.get("CRAWL", 12))

MODELS = sorted(admin.site._registry, key=lambda model: model._meta.label)
every_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.label)


@pytest.fixture
def crawler(boss, world):
    return Crawler(boss)


def changelist(model):
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def assert_well(crawler, least):
    assert crawler.complaints == {}, "\n".join(
        f"{what}\n    {command[:300]}" for what, command in crawler.complaints.items()
    )
    assert crawler.sent >= least, "it has hardly looked"


@every_model
def test_every_link_form_and_action_of_a_model(crawler, model):
    start = changelist(model)
    pages = crawler.crawl(start, start)
    crawler.try_some(crawler.wrong_ids(pages), EACH)
    crawler.try_some(crawler.wrong_parameters(pages), 2 * EACH)
    crawler.try_some(crawler.wrong_forms(pages), 2 * EACH)
    crawler.try_some(crawler.wrong_actions(start, pages[start]), EACH)
    assert_well(crawler, 60)
