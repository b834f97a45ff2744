"""The language of errors, pages, the admin site, bookings and emails."""

import re
from datetime import datetime
from decimal import Decimal

import pytest
from django.utils import formats, translation
from django.utils.translation import get_language

from accounts.models import User
from accounts.tests.factories import PASSWORD, AdminFactory, UserFactory
from bookings.mails import samples
from bookings.tests.factories import TUESDAY, BookingFactory
from bookit import languages, money
from bookit.tests.expect import problem
from bookit.web import pages
from catalog.tests.factories import ServiceFactory

pytestmark = pytest.mark.django_db

NOT_FOUND = {
    "en": "There is nothing at this address.",
    "de": "Unter dieser Adresse gibt es nichts.",
    "es": "No hay nada en esta dirección.",
    "pt": "Não há nada neste endereço.",
    "ru": "По этому адресу ничего нет.",
}


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("de", "de"),
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("fr,pt-BR;q=0.7", "pt"),
        ("en-GB,de", "en"),
        ("ru;q=0.2, es;q=0.9", "es"),
        ("de;q=0", None),
        ("fr", None),
        ("*", None),
        ("", None),
        ("de_DE\0", None),
        ("x" * 100_000, None),
    ],
)
def test_the_preferred_known_language_of_the_header_is_chosen(header, language):
    assert languages.accepted(header) == language


@pytest.mark.parametrize("language", NOT_FOUND)
def test_errors_are_in_the_language_of_the_request(client, language):
    response = client.get("/nowhere", headers={"Accept-Language": f"{language},en;q=0.1"})

    assert response.json()["detail"] == NOT_FOUND[language]
    assert response.json()["code"] == "not_found"
    assert response["Content-Language"] == language
    assert "Accept-Language" in response["Vary"]


def test_errors_are_in_english_if_the_request_names_no_language(client):
    response = client.get("/nowhere")

    assert response.json()["detail"] == NOT_FOUND["en"]
    assert response.json()["title"] == "Not Found"
    assert response["Content-Language"] == "en"


def test_errors_of_fields_are_translated_and_keep_their_codes(api):
    body = {"email": "nobody", "name": ""}
    headers = {"Accept-Language": "de"}

    english = api.post("/auth/register", body).json()
    german = api.post("/auth/register", body, headers=headers).json()

    assert german["title"] == "Ungültige Anfrage"
    assert [(each["field"], each["code"]) for each in german["errors"]] == [
        (each["field"], each["code"]) for each in english["errors"]
    ]
    messages = {each["message"] for each in german["errors"]}
    assert not messages & {each["message"] for each in english["errors"]}


def test_messages_about_limits_are_in_the_language_of_each_request(api):
    """Requests share the fields, and DRF by itself translates a message about a limit only once."""
    bodies = {
        "/auth/register": {"name": "x" * 201, "password": "x" * 129},
        "/services": {"title": "x" * 201, "price": "-1", "capacity": 0},
        "/calendars": {"opening_hours": [{"weekday": 7}]},
        "/bookings": {"service_ids": ["x"] * 21, "notes": "x" * 2001},
    }
    admin = api.as_(AdminFactory())
    found = {}
    for path, body in bodies.items():
        for language in ("de", "en", "es"):
            response = admin.post(path, body, headers={"Accept-Language": language})
            for error in response.json()["errors"]:
                if error["code"] != "required":
                    found.setdefault((path, error["field"]), set()).add(error["message"])
    assert len(found) == 8  # the fields in the bodies
    assert {len(messages) for messages in found.values()} == {3}, found


@pytest.mark.parametrize("language", ["de", "es", "pt", "ru"])
def test_texts_of_the_frameworks_are_translated_into_every_language(api, language):
    path = f"/services/{ServiceFactory().pk}/availability?explain=1"
    user = api.as_(UserFactory())
    account = {"name": "Ana", "email": "ana@example.com", "password": "x1"}

    def messages(headers):
        for response in (
            user.post("/auth/register", account, headers=headers),
            user.post("/bookings", {"service_id": "x"}, headers=headers),
            user.post("/bookings", {"service_ids": []}, headers=headers),
            user.post("/bookings", {"service_ids": ["x"] * 21}, headers=headers),
            user.get(path, headers=headers),
        ):
            yield from (error["message"] for error in response.json()["errors"])

    english, translated = ({*messages({"Accept-Language": each})} for each in ("en", language))
    assert len(english) >= 4
    assert not english & translated


@pytest.mark.parametrize(
    ("language", "text", "translated"),
    [
        ("ru", "Add %s", "Добавить: %s"),
        ("ru", "The {name} “{obj}” was changed successfully.", "Изменено: {name} «{obj}»."),
        ("de", "Reset password", "Passwort zurücksetzen"),
    ],
)
def test_bookit_translates_what_django_translates_wrongly_or_not_at_all(language, text, translated):
    with languages.speaking(language):
        assert translation.gettext(text) == translated


def test_russian_has_a_plural_form_for_each_kind_of_number():
    texts = []
    for seats in (1, 3, 5, 21):
        with languages.speaking("ru"):
            texts.append(
                translation.ngettext(
                    "%(count)d slot was published.", "%(count)d slots were published.", seats
                )
                % {"count": seats}
            )

    assert texts == [
        "Опубликован 1 сеанс.",
        "Опубликовано 3 сеанса.",
        "Опубликовано 5 сеансов.",
        "Опубликован 21 сеанс.",
    ]


def test_responses_without_translated_text_have_no_content_language(client):
    ServiceFactory()

    response = client.get("/services", headers={"Accept-Language": "de"})

    assert response.status_code == 200
    assert "Content-Language" not in response
    assert "Accept-Language" not in response["Vary"]


def test_a_thread_does_not_keep_the_language_of_an_earlier_request(client):
    client.get("/nowhere", headers={"Accept-Language": "de"})

    assert get_language() == "en"
    assert client.get("/nowhere").json()["detail"] == NOT_FOUND["en"]


def test_a_thread_does_not_keep_the_language_of_a_request_that_fails(client, monkeypatch):
    client.raise_request_exception = False
    monkeypatch.setattr("bookit.web.pages.problems.catalogue", lambda: 1 / 0)

    response = client.get("/errors", headers={"Accept-Language": "de"})

    assert response.status_code == 500
    assert get_language() == "en"


def test_the_openapi_document_is_in_english(client):
    english = client.get("/openapi.json").content
    pages.schema.cache_clear()  # Otherwise, the second request would get the stored document.

    assert client.get("/openapi.json", headers={"Accept-Language": "de"}).content == english


def test_pages_about_errors_are_in_the_language_of_the_request(client):
    page = client.get("/errors/booking_conflict", headers={"Accept-Language": "es"})

    assert '<html lang="es">' in page.content.decode()
    assert "Esta hora ya está reservada." in page.content.decode()
    assert "Accept-Language" in page["Vary"]


def test_the_admin_site_speaks_the_language_of_its_user(client):
    client.force_login(AdminFactory(language="de-AT"))

    page = client.get("/admin/bookings/booking/", headers={"Accept-Language": "es"})

    assert page["Content-Language"] == "de"
    assert "Buchungen" in page.content.decode()
    assert get_language() == "en"


def test_the_sign_in_page_speaks_the_language_of_the_browser(client):
    page = client.get("/admin/login/", headers={"Accept-Language": "pt-BR"})

    assert page["Content-Language"] == "pt"
    assert "Palavra-passe" in page.content.decode()


def test_a_file_is_translated_while_it_is_sent(client):
    client.force_login(AdminFactory(language="de"))
    ServiceFactory()

    response = client.get("/admin/catalog/service/export.csv")
    parts = []
    for part in response.streaming_content:
        parts.append(part)
        # Between two parts, the thread has its own language again.
        assert get_language() == "en"

    assert "Preis" in b"".join(parts).decode()


def test_a_user_who_registers_gets_the_language_of_the_browser_unless_the_body_names_one(api):
    body = {"name": "Ana", "email": "ana@example.com", "password": "seven quiet otters"}

    api.post("/auth/register", body, headers={"Accept-Language": "pt-PT"})
    api.post("/auth/register", {**body, "email": "b@example.com"})
    api.post(
        "/auth/register",
        {**body, "email": "c@example.com", "language": "ja"},
        headers={"Accept-Language": "de"},
    )

    assert [*User.objects.order_by("email").values_list("language", flat=True)] == [
        "pt",
        "en",
        "ja",
    ]


class TestLanguageOfABooking:
    def test_a_booking_has_the_language_of_the_user_unless_the_request_names_a_language(self, api):
        user, service = UserFactory(language="ru"), ServiceFactory(capacity=2)
        body = {"service_id": str(service.pk), "start_time": TUESDAY.isoformat()}

        default = api.as_(user).post("/bookings", body).json()
        chosen = api.as_(user).post("/bookings", {**body, "language": "pt-BR"}).json()

        assert (default["language"], chosen["language"]) == ("ru", "pt-BR")

    def test_the_language_can_be_changed(self, api):
        booking = BookingFactory(start_time=TUESDAY)

        response = api.as_(booking.user).patch(f"/bookings/{booking.pk}", {"language": "de"})

        assert response.json()["language"] == "de"
        assert booking.events.get().data["changed"] == ["language"]

    def test_a_text_that_is_not_a_language_tag_is_refused(self, api):
        booking = BookingFactory(start_time=TUESDAY)

        response = api.as_(booking.user).patch(f"/bookings/{booking.pk}", {"language": "german"})

        problem(response, 400, "validation_error", "language")


class TestEmails:
    def test_the_customer_gets_the_language_of_the_booking_and_the_provider_gets_their_own(self):
        occasion = samples.replace(samples.BOOKED, language="de-CH", provider_language="es")

        customer = samples.compose(occasion, "attendee", {})
        provider = samples.compose(occasion, "provider", {})

        assert customer.subject == "Bestätigt: Haircut, Di, 1. Dez 2026, 10:00"
        assert "Ihre Buchung ist bestätigt." in customer.text
        assert "Dienstag, 1. Dezember 2026, 10:00-10:45 (Europe/Lisbon)" in customer.text
        assert "Preis: 25,00 EUR" in customer.text
        assert '<html lang="de">' in customer.html
        assert "Ana Silva ha reservado." in provider.text

    def test_an_email_is_in_english_if_its_language_has_no_translation(self):
        sent = samples.compose(samples.replace(samples.BOOKED, language="fr"), "attendee", {})

        assert sent.subject == "Confirmed: Haircut, Tue 1 Dec 2026, 10:00"


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "12,500.00 EUR"),
        ("de", "12.500,00 EUR"),
        ("es", "12\xa0500,00 EUR"),
        ("pt", "12.500,00 EUR"),
        ("ru", "12\xa0500,00 EUR"),
    ],
)
def test_money_is_written_as_the_language_writes_it(language, text):
    with languages.speaking(language):
        assert money.written(Decimal("12500"), "EUR") == text
        assert money.written(Decimal("25"), "JPY") == "25 JPY"


@pytest.mark.parametrize("language", NOT_FOUND)
def test_every_language_has_its_own_formats_with_the_24_hour_clock(language):
    at = datetime(2026, 12, 1, 15, 5)  # noqa: DTZ001 - only its format matters
    with languages.speaking(language):
        for name in ("TIME_FORMAT", "DATETIME_FORMAT", "SHORT_DATETIME_FORMAT"):
            text = formats.date_format(at, name)
            assert re.search(r"\b15:05$", text), text
        # Django returns the name of a format that a language does not have.
        assert formats.get_format("PROSE_DAY_FORMAT") != "PROSE_DAY_FORMAT"


def test_a_sign_in_error_is_translated(api):
    UserFactory(email="ana@example.com")

    response = api.post(
        "/auth/login",
        {"email": "ana@example.com", "password": PASSWORD + "x"},
        headers={"Accept-Language": "ru"},
    )

    assert response.json()["detail"] == "Неверный адрес электронной почты или пароль."


@pytest.mark.parametrize("language", NOT_FOUND)
def test_the_months_have_twelve_names_in_every_language(language):
    """The column "May" (what an API key may do) is translated separately from the month."""
    with languages.speaking(language):
        months = {formats.date_format(datetime(2026, n, 1), "F") for n in range(1, 13)}  # noqa: DTZ001

    assert len(months) == 12
    assert months & {"May", "Mai", "mayo", "maio", "Май"}
