"""The pages of the admin site that show the words of emails and change them."""

import pytest
from django.contrib.admin.models import LogEntry
from django.core import mail
from django.core.exceptions import ValidationError
from django.urls import reverse
from django.utils import timezone

from accounts.links.kinds import KINDS
from accounts.links.models import EmailedLink
from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory, staff
from bookings import services
from bookings.mails import admin as pages
from bookings.mails import samples, texts
from bookings.mails.models import MailText
from bookings.mails.occasions import NEWS
from bookings.tests.factories import TUESDAY
from bookings.tests.jobs import work
from bookit.languages import speaking
from catalog.models import Calendar
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

LIST = "/admin/bookings/mailtext/"
BOOKED = f"{LIST}booked/change/"
NEW_WORDS = {
    "label": "See you soon",
    "attendee": "Park behind {calendar}.",
    "provider": "{name} comes.",
}


@pytest.fixture
def boss():
    return AdminFactory(email="boss@example.com", name="Boss")


@pytest.fixture
def site(client, boss):
    client.force_login(boss)
    return client


def preview(key="booked", audience="attendee"):
    return reverse("admin:bookings_mailtext_preview", args=[key, audience])


def page(key):
    return reverse("admin:bookings_mailtext_change", args=[key])


def form_of(site, key):
    return site.get(page(key)).context["adminform"].form


def change(key, label="", attendee="", provider=""):
    words = {"label": label, "attendee": attendee, "provider": provider}
    texts.change(key=key, at=timezone.now(), **words)


def stored(key):
    return MailText.objects.values("label", "attendee", "provider").get(key=key)


def test_every_kind_of_email_has_an_occasion_and_a_sample_for_each_reader():
    assert NEWS.keys() == pages.OCCASIONS.keys()
    for kind, news in NEWS.items():
        for audience in ("attendee", "provider"):
            if getattr(news, audience):
                assert samples.mail(kind, audience, {}).subject.startswith(f"{news.label}: ")


def test_the_list_shows_every_email_and_which_ones_have_words_of_the_operator(
    site, django_assert_max_num_queries
):
    texts.change(key="booked", at=timezone.now(), **NEW_WORDS)
    with django_assert_max_num_queries(8):
        response = site.get(LIST)
    shown = {kind.kind: kind for kind in response.context["kinds"]}
    assert shown.keys() == NEWS.keys()
    assert [kind for kind in shown if shown[kind].changed] == ["booked"]
    assert "Park behind {calendar}." in response.content.decode()


def test_the_list_says_which_languages_have_words_of_the_operator(
    site, django_assert_max_num_queries
):
    change("booked", attendee="Hello!")
    change("booked.de", attendee="Hallo!")
    change("booked.pt")  # a text without words
    change("reminder.ru", label="Скоро")
    with django_assert_max_num_queries(8):
        shown = {kind.kind: kind for kind in site.get(LIST).context["kinds"]}
    names = {kind: [page.name for page in shown[kind].changed] for kind in shown}
    assert names["booked"] == ["Every language", "Deutsch"]
    assert names["reminder"] == ["Русский"]
    assert names["moved"] == []


def test_the_words_that_an_operator_saves_are_in_the_emails(site, boss):
    ana = UserFactory(email="ana@example.com")
    chair = CalendarFactory(name="Chair 1", provider=ProviderFactory(email="rui@example.com"))
    haircut = ServiceFactory(title="Haircut", calendar=chair, requires_confirmation=False)
    assert site.post(BOOKED, NEW_WORDS).status_code == 302
    services.create_booking(actor=ana, service_id=haircut.pk, start_time=TUESDAY, at=timezone.now())
    work()
    to_ana, to_rui = sorted(mail.outbox, key=lambda message: message.to)
    assert to_ana.subject.startswith("See you soon: Haircut, ")
    assert "\nPark behind Chair 1.\n" in to_ana.body
    assert "Park behind Chair 1." in to_ana.alternatives[0].content
    assert f"\n{ana.name} comes.\n" in to_rui.body
    assert LogEntry.objects.get().user == boss


def test_a_form_begins_with_the_words_in_use_and_stores_only_different_words(site):
    form = site.get(BOOKED).context["adminform"].form
    news = NEWS["booked"]
    assert form["label"].value() == news.label
    assert form["attendee"].value() == news.attendee
    site.post(
        BOOKED, {"label": str(news.label), "attendee": "Hello!", "provider": str(news.provider)}
    )
    assert MailText.objects.values("label", "attendee", "provider").get() == {
        "label": "",
        "attendee": "Hello!",
        "provider": "",
    }
    assert site.get(BOOKED).context["adminform"].form["attendee"].value() == "Hello!"
    site.post(BOOKED, {"label": "", "attendee": "", "provider": ""})
    assert texts.applied(news, texts.in_use()) == news


def test_an_email_that_the_provider_does_not_get_has_no_text_for_the_provider(site):
    form = site.get(f"{LIST}reminder/change/").context["adminform"].form
    assert list(form.fields) == ["label", "attendee"]
    site.post(f"{LIST}reminder/change/", {"label": "Soon", "attendee": "x", "provider": "x"})
    assert MailText.objects.get().provider == ""


@pytest.mark.parametrize(
    ("field", "text", "part"),
    [
        ("attendee", "Dear {name}", "{name} is not a placeholder"),
        ("attendee", "{service.__class__}", "{service.__class__} is not a placeholder"),
        ("provider", "{until}", "{until} is not a placeholder"),
        ("attendee", "a { b", "{ is not a placeholder"),
        ("attendee", "a } b", "} is not a placeholder"),
        ("label", "{service}", "cannot contain placeholders"),
    ],
)
def test_placeholders_that_a_text_cannot_have_are_refused_at_their_field(site, field, text, part):
    response = site.post(BOOKED, {**NEW_WORDS, field: text})
    assert response.status_code == 200
    assert part in response.context["adminform"].form.errors[field][0]
    assert not MailText.objects.exists()
    with pytest.raises(ValidationError):
        texts.change(key="booked", at=timezone.now(), **{**NEW_WORDS, field: text})


class TestLanguages:
    """The words of a kind of email can differ between languages."""

    def test_a_field_falls_back_to_the_words_for_every_language_and_then_to_bookits_words(self):
        change("booked", attendee="Park behind {calendar}.")
        change("booked.de", label="Bis bald")
        used = texts.in_use()
        booked = {}
        for language in ("de", "pt"):
            with speaking(language):
                news = texts.applied(NEWS["booked"], used)
                booked[language] = [
                    str(each) for each in (news.label, news.attendee, news.provider)
                ]
        assert booked == {
            "de": ["Bis bald", "Park behind {calendar}.", "{name} hat gebucht."],
            "pt": ["Confirmada", "Park behind {calendar}.", "{name} fez uma reserva."],
        }

    def test_an_email_has_the_words_of_its_readers_language(self, site):
        haircut = ServiceFactory(requires_confirmation=False)
        Calendar.objects.update(provider=ProviderFactory(email="rui@example.com", language="de"))
        change("booked", attendee="Hello!", provider="Look!")
        change("booked.pt", attendee="Olá!", provider="Veja!")
        change("booked.de", attendee="Hallo!", provider="Schau!")
        ana = UserFactory(email="ana@example.com", language="pt-BR")
        services.create_booking(
            actor=ana, service_id=haircut.pk, start_time=TUESDAY, at=timezone.now()
        )
        work()
        bodies = {message.to[0]: message.body for message in mail.outbox}
        assert "\nOlá!\n" in bodies["ana@example.com"]
        assert "\nSchau!\n" in bodies["rui@example.com"]

    def test_the_email_about_the_end_of_a_waitlist_has_the_words_of_its_language(self):
        change("queue-ended.de", attendee="Leider nein.")
        with speaking("de-AT"):
            assert "Leider nein." in samples.mail("queue-ended", "attendee", texts.in_use()).text
        with speaking("es"):
            assert "Leider" not in samples.mail("queue-ended", "attendee", texts.in_use()).text

    def test_a_page_begins_with_the_words_in_use_and_explains_an_empty_field(self, site):
        change("reminder", attendee="Bring a towel.")
        every, german = form_of(site, "reminder"), form_of(site, "reminder.de")
        assert every["attendee"].value() == german["attendee"].value() == "Bring a towel."
        assert "Empty: “This is a reminder of your booking.”" in every["attendee"].help_text
        assert "Empty: “Bring a towel.”" in german["attendee"].help_text
        assert german["label"].value() == "Erinnerung"
        assert "Empty: “Erinnerung”" in german["label"].help_text
        assert german["label"].field.widget.attrs["lang"] == "de"
        assert "of every language that has no words of its own" in site.get(page("reminder")).text
        assert "only to readers of this language" in site.get(page("reminder.de")).text

    def test_each_language_has_a_tab_and_a_mark_if_it_has_own_words(self, site):
        change("reminder.pt", attendee="Traga uma toalha.")
        shown = site.get(page("reminder.de"))
        assert [(each.name, each.url, each.has_words) for each in shown.context["pages"]] == [
            ("Every language", page("reminder"), False),
            ("English", page("reminder.en"), False),
            ("Deutsch", page("reminder.de"), False),
            ("Español", page("reminder.es"), False),
            ("Português", page("reminder.pt"), True),
            ("Русский", page("reminder.ru"), False),
        ]
        assert f'<a href="{page("reminder.de")}" aria-current="page">' in shown.text
        assert shown.text.count('class="mail-mark"') == 1
        assert f'href="{page("reminder")}" aria-current="page"' in site.get(page("reminder")).text

    def test_words_that_would_be_sent_anyway_are_stored_as_empty(self, site):
        change("reminder", attendee="Bring a towel.\nAnd soap.")
        same = {"label": "Erinnerung", "attendee": "Bring a towel.\r\nAnd soap.\r\n"}
        site.post(page("reminder.de"), same)
        assert stored("reminder.de") == {"label": "", "attendee": "", "provider": ""}
        # In English, this label differs from BookIt's own, so it is stored.
        site.post(page("reminder.en"), {"label": "Erinnerung", "attendee": ""})
        assert stored("reminder.en") == {"label": "Erinnerung", "attendee": "", "provider": ""}
        assert stored("reminder")["attendee"] == "Bring a towel.\nAnd soap."

    def test_a_field_that_was_left_alone_on_the_page_of_a_language_stays_empty(self, site):
        """The form sends back the words that it showed, even if they have changed since then."""
        change("reminder", attendee="Bring a towel.")
        shown = {"attendee": "Bring a towel.", "initial-attendee": "Bring a towel."}
        change("reminder", attendee="Bring soap.")
        site.post(page("reminder.de"), {**shown, "label": "Bald", "initial-label": "Erinnerung"})
        assert stored("reminder.de") == {"label": "Bald", "attendee": "", "provider": ""}

    def test_a_field_that_was_left_alone_keeps_what_somebody_else_has_stored(self, site):
        shown = {"attendee": "Hello!", "initial-attendee": "Hello!"}
        change("reminder", attendee="Hello again!")
        site.post(page("reminder"), {**shown, "label": "Soon", "initial-label": "Reminder"})
        assert stored("reminder") == {"label": "Soon", "attendee": "Hello again!", "provider": ""}

    def test_a_change_is_in_the_history_of_its_language(self, site):
        site.post(page("reminder.de"), {"label": "Bald", "attendee": ""})
        entry = LogEntry.objects.get()
        assert (entry.object_id, entry.object_repr) == ("reminder.de", "Reminder (Deutsch)")
        history = reverse("admin:bookings_mailtext_history", args=["reminder.de"])
        assert "Reminder (Deutsch)" in site.get(history).text

    @pytest.mark.parametrize("key", ["booked.fr", "booked.", "booked.DE", "booked.de.de", ".de"])
    def test_a_key_with_an_unknown_language_or_without_a_kind_has_no_page(self, site, key):
        assert site.get(page(key)).status_code == 302
        assert site.post(page(key), NEW_WORDS).status_code == 302
        assert site.get(preview(key)).status_code == 404
        assert not MailText.objects.exists()

    def test_the_preview_is_in_the_language_of_the_text(self, site):
        change("booked", label="See you", attendee="Hello!")
        shown = site.post(
            preview("booked.de"), {**NEW_WORDS, "label": "", "attendee": "Hallo {when}"}
        )
        assert "Dienstag, 1. Dezember 2026, 10:00" in shown.context["text"]
        assert shown.context["subject"].startswith("See you: Haircut, Di")
        assert '<pre tabindex="0" lang="de">' in shown.text
        assert "Plain text" in shown.text  # the page around the email is in the user's language
        assert "Hello!" in site.get(preview("booked.pt")).context["text"]
        assert "Olá, Ana Silva," in site.get(preview("booked.pt")).context["text"]

    def test_words_for_one_language_are_previewed_only_on_the_page_of_this_language(self, site):
        change("booked", attendee="Hello!")
        change("booked.en", attendee="Good morning!")
        assert "Hello!" in site.get(preview("booked")).context["text"]
        assert "Good morning!" in site.get(preview("booked.en")).context["text"]


def test_a_line_break_in_the_label_adds_no_header():
    text = MailText(key="booked", label="Booked\r\nBcc: evil@example.com")
    subject = samples.mail("booked", "attendee", {"booked": text}).subject
    assert subject.startswith("Booked Bcc: evil@example.com: Haircut, ")


def test_a_value_that_looks_like_a_placeholder_is_not_replaced():
    assert texts.filled("{service}", {"service": "{name}", "name": "x"}) == "{name}"


class TestPreview:
    def test_it_shows_the_unsaved_words_and_stores_nothing(self, site):
        response = site.post(preview(), NEW_WORDS)
        assert response.status_code == 200
        assert "Park behind Helena&#x27;s chair." in response.content.decode()
        assert response["X-Frame-Options"] == "SAMEORIGIN"
        policy = response["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'self'" in policy
        assert not MailText.objects.exists()

    def test_it_shows_the_words_in_use(self, site):
        assert "Your booking is confirmed." in site.get(preview()).content.decode()
        texts.change(key="booked", at=timezone.now(), **NEW_WORDS)
        assert "Ana Silva comes." in site.get(preview(audience="provider")).content.decode()

    def test_it_says_why_there_is_no_preview(self, site):
        html = site.post(preview(), {**NEW_WORDS, "attendee": "<b>{x}"}).content.decode()
        assert "{x} is not a placeholder" in html
        assert "<b>" not in html

    def test_html_in_the_words_is_escaped(self, site):
        html = site.post(preview(), {**NEW_WORDS, "attendee": "<script>alert(1)</script>"})
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html.content.decode()

    def test_it_is_in_the_language_of_the_operator(self, site, boss):
        boss.language = "de"
        boss.save(update_fields=["language"])
        for kind in ("booked", "queue-ended"):
            assert "Guten Tag, Ana Silva!" in site.get(preview(kind)).context["text"]

    @pytest.mark.parametrize(
        ("language", "sender", "recipient"), [("de", "Von", "An"), ("ru", "От кого", "Кому")]
    )
    def test_it_names_the_sender_and_the_recipient(self, site, boss, language, sender, recipient):
        """In English, they have the same names as the start and the end of a period."""
        boss.language = language
        boss.save(update_fields=["language"])
        html = site.get(preview()).content.decode()
        assert (f"<dt>{sender}</dt>" in html, f"<dt>{recipient}</dt>" in html) == (True, True)

    def test_it_is_shown_in_the_chosen_language(self, site):
        standard = {name: str(getattr(NEWS["booked"], name)) for name in NEW_WORDS}
        for words in (standard, {**standard, "attendee": "Park behind the house."}):
            text = site.post(preview(), {**words, "preview_language": "de"}).context["text"]
            assert "Guten Tag, Ana Silva!" in text
            assert ("Park behind the house." in text) == (words is not standard)
            assert str(NEWS["booked"].attendee) not in text
        assert "Guten Tag" not in site.get(preview(), {"preview_language": "xx"}).context["text"]
        assert 'name="preview_language"' in site.get(BOOKED).content.decode()

    def test_it_shows_the_subject_and_the_plain_text(self, site):
        html = site.post(preview(), NEW_WORDS).content.decode()
        assert "See you soon: Haircut, " in html
        assert "\nPark behind Helena&#x27;s chair.\n" in html

    def test_it_shows_the_email_in_light_and_in_dark_colours(self, site):
        """If the layout of emails changes, the preview must still find its dark colours."""
        shown = site.get(preview()).context
        assert "@media not all {" in shown["light"]
        assert "@media all {" in shown["dark"]
        assert shown["light"].count("{") == shown["dark"].count("{") > 10

    @pytest.mark.parametrize(
        ("kind", "audience"), [("x", "attendee"), ("booked", "label"), ("reminder", "provider")]
    )
    def test_an_email_that_does_not_exist_is_not_found(self, site, kind, audience):
        assert site.get(preview(kind, audience)).status_code == 404


def test_an_unknown_kind_has_no_page(site):
    assert site.get(f"{LIST}nothing/change/").status_code == 302


def test_only_admins_see_and_change_the_words(client):
    client.force_login(staff(["bookings.view_booking"]))
    for path in (LIST, BOOKED, preview(), page("booked.de"), preview("booked.de")):
        assert client.get(path).status_code == 403
    for path in (BOOKED, page("booked.de")):
        assert client.post(path, NEW_WORDS).status_code == 403
    assert not MailText.objects.exists()


class TestAccounts:
    """Emails about accounts are shown too, but nobody can change their words."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_each_email_has_a_page_with_a_preview(self, site, kind):
        page = reverse("admin:bookings_mailtext_account", args=[kind])
        assert page in site.get(LIST).content.decode()
        shown = site.get(page)
        assert str(KINDS[kind].subject) in shown.content.decode()
        sample = site.get(shown.context["preview"])
        assert sample["X-Frame-Options"] == "SAMEORIGIN"
        assert str(KINDS[kind].lead) in sample.context["text"]
        assert not EmailedLink.objects.exists()

    def test_a_preview_is_shown_in_the_chosen_language(self, site):
        path = reverse("admin:bookings_mailtext_account_preview", args=["password_reset"])
        assert "Guten Tag, Ana Silva!" in site.get(path, {"preview_language": "de"}).context["text"]

    def test_a_preview_shows_the_link_to_the_front_end(self, site, settings):
        settings.PASSWORD_RESET_URL = "https://app.example.com/reset?token={token}"
        path = reverse("admin:bookings_mailtext_account_preview", args=["password_reset"])
        assert "https://app.example.com/reset?token=made-up-token" in site.get(path).context["text"]

    def test_an_email_that_does_not_exist_is_not_found(self, site):
        for name in ("account", "account_preview"):
            page = reverse(f"admin:bookings_mailtext_{name}", args=["nothing"])
            assert site.get(page).status_code == 404

    def test_only_admins_see_these_pages(self, client):
        client.force_login(staff(["bookings.view_booking"]))
        for name in ("account", "account_preview"):
            page = reverse(f"admin:bookings_mailtext_{name}", args=["password_reset"])
            assert client.get(page).status_code == 403
