"""The words of emails in the admin site."""

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
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

LIST = "/admin/bookings/mailtext/"
BOOKED = f"{LIST}booked/change/"
OURS = {"label": "See you soon", "attendee": "Park behind {calendar}.", "provider": "{name} comes."}


@pytest.fixture
def boss():
    return AdminFactory(email="boss@example.com", name="Boss")


@pytest.fixture
def site(client, boss):
    client.force_login(boss)
    return client


def preview(kind="booked", audience="attendee"):
    return reverse("admin:bookings_mailtext_preview", args=[kind, audience])


def test_every_kind_of_email_has_an_occasion_and_a_sample_for_each_reader():
    assert NEWS.keys() == pages.OCCASIONS.keys()
    for kind, news in NEWS.items():
        for audience in ("attendee", "provider"):
            if getattr(news, audience):
                assert samples.mail(kind, audience, {}).subject.startswith(f"{news.label}: ")


def test_the_list_shows_every_email_and_which_ones_have_words_of_the_operator(
    site, django_assert_max_num_queries
):
    texts.change(kind="booked", at=timezone.now(), **OURS)
    with django_assert_max_num_queries(8):
        response = site.get(LIST)
    shown = {kind.kind: kind for kind in response.context["kinds"]}
    assert shown.keys() == NEWS.keys()
    assert [kind for kind in shown if shown[kind].is_changed] == ["booked"]
    assert "Park behind {calendar}." in response.content.decode()


def test_the_words_that_an_operator_saves_are_in_the_emails(site, boss):
    ana = UserFactory(email="ana@example.com")
    chair = CalendarFactory(name="Chair 1", provider=ProviderFactory(email="rui@example.com"))
    haircut = ServiceFactory(title="Haircut", calendar=chair, requires_confirmation=False)
    assert site.post(BOOKED, OURS).status_code == 302
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
    ("kind", "field", "text", "part"),
    [
        ("booked", "attendee", "Dear {name}", "{name} is not a placeholder"),
        ("booked", "attendee", "{service.__class__}", "{service.__class__} is not a placeholder"),
        ("booked", "provider", "{until}", "{until} is not a placeholder"),
        ("booked", "attendee", "a { b", "{ is not a placeholder"),
        ("booked", "label", "{service}", "cannot contain placeholders"),
    ],
)
def test_unknown_placeholders_are_refused_at_their_field(site, kind, field, text, part):
    response = site.post(f"{LIST}{kind}/change/", {**OURS, field: text})
    assert response.status_code == 200
    assert part in response.context["adminform"].form.errors[field][0]
    assert not MailText.objects.exists()
    with pytest.raises(ValidationError):
        texts.change(kind=kind, at=timezone.now(), **{**OURS, field: text})


def test_a_line_break_in_the_label_adds_no_header():
    text = MailText(kind="booked", label="Booked\r\nBcc: evil@example.com")
    subject = samples.mail("booked", "attendee", {"booked": text}).subject
    assert subject.startswith("Booked Bcc: evil@example.com: Haircut, ")


def test_a_value_that_looks_like_a_placeholder_is_not_replaced():
    assert texts.filled("{service}", {"service": "{name}", "name": "x"}) == "{name}"


class TestPreview:
    def test_it_shows_the_unsaved_words_and_stores_nothing(self, site):
        response = site.post(preview(), OURS)
        assert response.status_code == 200
        assert "Park behind Helena&#x27;s chair." in response.content.decode()
        assert response["X-Frame-Options"] == "SAMEORIGIN"
        policy = response["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'self'" in policy
        assert not MailText.objects.exists()

    def test_it_shows_the_words_in_use(self, site):
        assert "Your booking is confirmed." in site.get(preview()).content.decode()
        texts.change(kind="booked", at=timezone.now(), **OURS)
        assert "Ana Silva comes." in site.get(preview(audience="provider")).content.decode()

    def test_it_says_why_there_is_no_preview(self, site):
        html = site.post(preview(), {**OURS, "attendee": "<b>{x}"}).content.decode()
        assert "{x} is not a placeholder" in html
        assert "<b>" not in html

    def test_html_in_the_words_is_text(self, site):
        html = site.post(preview(), {**OURS, "attendee": "<script>alert(1)</script>"})
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html.content.decode()

    def test_it_speaks_the_language_of_the_operator(self, site, boss):
        boss.language = "de"
        boss.save(update_fields=["language"])
        for kind in ("booked", "queue-ended"):
            assert "Hallo Ana Silva," in site.get(preview(kind)).context["text"]

    def test_it_is_shown_in_the_chosen_language(self, site):
        standard = {name: str(getattr(NEWS["booked"], name)) for name in OURS}
        for words in (standard, {**standard, "attendee": "Park behind the house."}):
            text = site.post(preview(), {**words, "preview_language": "de"}).context["text"]
            assert "Hallo Ana Silva," in text
            assert ("Park behind the house." in text) == (words is not standard)
            assert str(NEWS["booked"].attendee) not in text
        assert "Hallo" not in site.get(preview(), {"preview_language": "xx"}).context["text"]
        assert 'name="preview_language"' in site.get(BOOKED).content.decode()

    def test_it_shows_the_subject_and_the_plain_text(self, site):
        html = site.post(preview(), OURS).content.decode()
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
    with pytest.raises(texts.UnknownKind):
        texts.change(kind="nothing", at=timezone.now(), **OURS)


def test_only_admins_see_and_change_the_words(client):
    client.force_login(staff(["bookings.view_booking"]))
    for path in (LIST, BOOKED, preview()):
        assert client.get(path).status_code == 403
    assert client.post(BOOKED, OURS).status_code == 403
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
        assert "Hallo Ana Silva," in site.get(path, {"preview_language": "de"}).context["text"]

    def test_a_preview_shows_the_link_to_the_front_end(self, site, settings):
        settings.PASSWORD_RESET_URL = "https://app.example.com/reset?token={token}"
        page = reverse("admin:bookings_mailtext_account_preview", args=["password_reset"])
        assert "https://app.example.com/reset?token=made-up-token" in site.get(page).context["text"]

    def test_an_email_that_does_not_exist_is_not_found(self, site):
        for name in ("account", "account_preview"):
            page = reverse(f"admin:bookings_mailtext_{name}", args=["nothing"])
            assert site.get(page).status_code == 404

    def test_only_admins_see_them(self, client):
        client.force_login(staff(["bookings.view_booking"]))
        for name in ("account", "account_preview"):
            page = reverse(f"admin:bookings_mailtext_{name}", args=["password_reset"])
            assert client.get(page).status_code == 403
