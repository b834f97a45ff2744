"""All texts of the admin site, of emails and of errors can be translated."""

import json
from urllib.parse import urlsplit

import pytest
from django.contrib import admin
from django.template import engines
from django.test import RequestFactory
from django.urls import reverse
from django.utils import translation
from rest_framework_simplejwt.tokens import AccessToken

from accounts.links import services as account_mails
from accounts.links.kinds import KINDS
from bookings.mails import samples
from bookings.mails.occasions import NEWS
from bookings.models import Booking
from bookings.tests.factories import TUESDAY
from bookit.adminsite.extensions import PAGES
from bookit.adminsite.links import list_of
from bookit.adminsite.tests.crawler import Crawler, shape_of
from bookit.errors import problems
from bookit.tests import pseudo
from bookit.tests.routes import api_paths

pytestmark = pytest.mark.django_db

MODELS = sorted(admin.site._registry, key=lambda model: model._meta.label)


@pytest.fixture
def brackets(monkeypatch):
    """Put each translated text in brackets; see `bookit.tests.pseudo`."""
    # Another test may have left a language active, and later tests must not get the brackets.
    translation.deactivate()
    pseudo.speak(monkeypatch)
    yield
    translation.deactivate()


def texts_of_pages(pages, crawler):
    """Return texts without a translation, by the path of their page, with `ID` in place of ids."""
    data = pseudo.data_of_all_rows()
    found = {}
    for url in pages:
        response = crawler.client.get(url)
        assert response.status_code == 200, url
        if response.get("Content-Type", "").startswith("text/html"):
            left = pseudo.leftovers(pseudo.Texts(response.content.decode()).outside, data)
            if left:
                found.setdefault(shape_of(urlsplit(url).path), set()).update(left)
    return found


def assert_translated(found):
    assert not found, "\n".join(
        f"{place}: {text!r}" for place, texts in found.items() for text in sorted(texts)
    )


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.label)
def test_the_pages_of_a_model_are_translated(boss, world, brackets, monkeypatch, model):
    # The sidebar has the same texts on each page. The test below checks them.
    monkeypatch.setattr(admin.site, "enable_nav_sidebar", False)
    crawler = Crawler(boss)
    start = list_of(model)
    pages = crawler.crawl(start, inside=(start,))

    assert_translated(texts_of_pages(pages, crawler))


def test_all_other_pages_of_the_admin_site_are_translated(boss, world, brackets):
    crawler = Crawler(boss)
    names = ["index", "password_change", "password_change_done"]
    starts = [reverse(f"admin:{name}") for name in names]
    starts += [link["admin_url"] for part in _menu(boss) for link in part["models"]]
    pages = crawler.crawl(
        *dict.fromkeys(each for each in starts if each.startswith("/admin/")),
        inside=tuple(path for path in _folders() if path != "/admin/"),
    )

    # Today, no calendar has bookings, so no link led to a day sheet. The crawler cannot start at a
    # day sheet: each one links to that of the next day, without end.
    calendar, day = Booking.objects.earliest("id").calendar_id, f"{TUESDAY:%Y-%m-%d}"
    sheets = [
        f"{reverse('admin:day_sheets')}?day={day}",
        reverse("admin:day_sheet", args=[calendar, day]),
    ]

    assert_translated(texts_of_pages([*pages, *sheets], crawler))


def _menu(user):
    request = RequestFactory().get("/admin/")
    request.user = user
    return admin.site.get_app_list(request)


def _folders():
    for page in PAGES.values():
        for url in page.urls:
            yield "/admin/" + str(url.pattern).partition("<")[0]


def test_the_sign_in_page_is_translated(boss, brackets):
    crawler = Crawler(boss, signed_in=False)

    assert_translated(texts_of_pages([reverse("admin:login")], crawler))
    refused = crawler.client.post(reverse("admin:login"), {"username": "x", "password": "y"})
    assert pseudo.leftovers(pseudo.Texts(refused.content.decode()).outside, set()) == set()


@pytest.mark.parametrize("path", ["/errors", "/errors/throttled", "/errors/booking_conflict"])
def test_pages_about_errors_are_translated(client, brackets, path):
    response = client.get(path)
    assert response.status_code == 200
    page = response.content.decode()
    codes = {*problems.catalogue()}

    assert pseudo.leftovers(pseudo.Texts(page).outside, codes) == set()


@pytest.mark.parametrize("method", ["get", "post", "patch", "put", "delete"])
def test_errors_of_the_api_are_translated(client, boss, brackets, method):
    """Call every endpoint without a token, and with a token and invalid bodies and parameters."""
    token = AccessToken()
    token["user_id"] = str(boss.pk)
    signed_in = {"Authorization": f"Bearer {token}"}
    found = {}
    for path in api_paths():
        requests = [
            ({}, "", ""),
            (signed_in, "", "{"),
            (signed_in, "", "{}"),
            (signed_in, "", json.dumps({name: [] for name in FIELDS})),
            (signed_in, "?unknown=1", "{}"),
            (signed_in, "?limit=x", "{}"),
        ]
        for headers, query, body in requests:
            send = getattr(client, method)
            options = {} if method == "get" else {"content_type": "application/json", "data": body}
            response = send(path + query, **options, headers=headers)
            if response.status_code >= 400:
                problem = response.json()
                texts = [problem["title"], problem["detail"]]
                texts += [each["message"] for each in problem.get("errors", ())]
                left = {text for each in texts for text in pseudo.outside(each)}
                left = pseudo.leftovers(left, set())
                if left:
                    found.setdefault(f"{method} {path}{query}", set()).update(left)

    assert_translated(found)


# Fields of bodies. None of them can be a list.
FIELDS = [
    "title",
    "name",
    "email",
    "start_time",
    "service_id",
    "status",
    "rating",
    "url",
    "language",
]


@pytest.mark.parametrize(
    ("kind", "audience"),
    [
        (kind, audience)
        for kind, news in NEWS.items()
        for audience in ("attendee", "provider")
        if getattr(news, audience)
    ],
)
def test_emails_about_bookings_are_translated(brackets, kind, audience):
    sent = samples.mail(kind, audience, {})

    assert leftovers_of_mail(sent.subject, sent.text, sent.html) == set()


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_emails_about_accounts_are_translated(boss, brackets, kind):
    sent = account_mails._compose(kind, boss, boss.email, "token")

    html = sent.alternatives[0][0]
    assert leftovers_of_mail(sent.subject, sent.body, html, {boss.name, "token"}) == set()


# The texts in the sample emails that are not translated: words of users, and time zones.
SAMPLE = {
    *("Ana Silva", "Helena Costa", "Haircut", "Helena's chair", "Morning yoga", "Studio 2"),
    *("Short at the sides, please.", "I may be five minutes late.", "I have to work that day."),
    *("Helena is ill. She is sorry, and back on Thursday.", "Europe/Lisbon", "Europe/Paris"),
}


def leftovers_of_mail(subject, text, html, data=SAMPLE):
    texts = [*pseudo.outside(subject), *pseudo.Texts(html).outside]
    for line in text.splitlines():
        texts += pseudo.outside(line)
    return pseudo.leftovers(texts, data)


def test_a_text_without_a_translation_is_found(brackets):
    """Control for the tests above."""
    page = engines["django"].from_string(
        '{% load i18n %}<p title="Hint">{% translate "Good" %} bad <a>{{ name }}</a></p>'
    )

    texts = pseudo.Texts(page.render({"name": "Ana"})).outside

    assert pseudo.leftovers(texts, {"Ana"}) == {"Hint", "bad"}
