"""The pages that show a row as cards, their buttons, and the cells for people and times."""

from datetime import timedelta

import pytest
from django.utils import timezone
from django.utils.html import strip_tags

from accounts.emails import no_mailbox
from accounts.models import User
from accounts.sessions.models import Session
from accounts.tests.factories import staff
from bookings.tests.factories import DeliveryFactory, WebhookFactory
from bookings.webhooks.models import Delivery, Webhook
from bookit.adminsite.cells import moment, person
from bookit.adminsite.tests.addresses import url_of
from bookit.languages import speaking

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("model", [Webhook, Delivery, Session])
def test_the_page_of_a_row_has_cards_and_no_save_button(site, world, model):
    row = model.objects.first()
    shown = site.get(url_of(model, "change", row.pk)).content.decode()
    assert 'class="card"' in shown
    assert 'name="_save"' not in shown
    # The Content-Security-Policy forbids inline styles.
    assert "style=" not in shown.split('id="content"')[1]


def test_a_button_acts_only_on_its_row_and_redirects_to_the_page_of_the_row(site):
    webhook, other = WebhookFactory.create_batch(2)
    response = site.post(url_of(Webhook, "act", webhook.pk, "send_test"))
    assert response["Location"] == url_of(Webhook, "change", webhook.pk)
    assert [each.webhook for each in Delivery.objects.all()] == [webhook]
    assert other.deliveries.count() == 0


def test_a_get_request_to_the_url_of_a_button_is_refused(site):
    webhook = WebhookFactory()
    assert site.get(url_of(Webhook, "act", webhook.pk, "send_test")).status_code == 405
    assert not Delivery.objects.exists()


@pytest.mark.parametrize("action", ["delete_selected", "nonsense", "delete_row"])
def test_only_the_buttons_of_a_page_can_be_pressed(site, action):
    webhook = WebhookFactory()
    assert site.post(url_of(Webhook, "act", webhook.pk, action)).status_code == 403
    assert Webhook.objects.exists()


@pytest.mark.parametrize("row", ["abc", "01a00000-0000-7000-8000-000000000000", "9" * 400])
def test_a_button_of_a_missing_row_gets_a_404(site, row):
    assert site.post(url_of(Webhook, "act", row, "send_test")).status_code == 404


def test_a_message_says_why_the_service_refused_an_action(site):
    delivery = DeliveryFactory(webhook=WebhookFactory(is_active=False))
    response = site.post(url_of(Delivery, "act", delivery.pk, "redeliver"), follow=True)
    assert "This webhook is switched off." in response.content.decode()


@pytest.mark.parametrize("action", ["send_test", "switch_on", "switch_off"])
def test_staff_without_the_permission_can_press_no_button(client, action):
    client.force_login(staff(["bookings.view_booking"]))
    webhook = WebhookFactory(is_active=action != "switch_on")
    assert client.post(url_of(Webhook, "act", webhook.pk, action)).status_code == 403
    before = webhook.is_active
    webhook.refresh_from_db()
    assert webhook.is_active == before
    assert not Delivery.objects.exists()


def test_the_made_up_address_of_a_customer_without_an_email_address_is_not_shown():
    ana = User(name="Ana", email="ana@example.com")
    assert person(ana) == 'Ana <span class="below">ana@example.com</span>'
    ana.email = no_mailbox(ana.pk)
    assert person(ana) == 'Ana <span class="below"></span>'


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", "3 days ago"),
        ("de", "3 Tage her"),
        ("es", "hace 3 días"),
        ("pt", "3 dias atrás"),
        ("ru", "3 дня назад"),
    ],
)
def test_how_long_ago_something_happened_is_said_in_the_language_of_the_user(language, words):
    with speaking(language):
        shown = strip_tags(moment(timezone.now() - timedelta(days=3)))
    assert shown.replace("\N{NO-BREAK SPACE}", " ") == words
