"""The admin pages of webhooks and deliveries, for an operator who looks for a fault."""

import json
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from accounts.privacy.services import erase_user
from accounts.tests.factories import AdminFactory
from bookings import events
from bookings.models import BookingEvent
from bookings.tests.factories import (
    AttemptFactory,
    BookingFactory,
    DeliveryFactory,
    WebhookFactory,
)
from bookings.webhooks.deliveries import contents
from bookings.webhooks.models import Attempt, Delivery, Webhook
from bookit.json import dumps

pytestmark = pytest.mark.django_db


def url_of(model, kind, *args):
    return reverse(f"admin:bookings_{model._meta.model_name}_{kind}", args=args)


@pytest.fixture
def site(client):
    client.force_login(AdminFactory(timezone="Asia/Tokyo"))
    return client


def text(response):
    assert response.status_code == 200
    return response.content.decode()


def delivery_of(booking, **fields):
    event = events.record(booking, BookingEvent.Type.CREATED, actor=None, at=timezone.now())
    return DeliveryFactory(event=event, type=event.type, **fields)


def card(response, title):
    """Return the card with a title, as the view passed it to the template."""
    return next(each for each in response.context["cards"] if str(each.title) == title)


def test_a_delivery_shows_its_request_each_response_and_the_next_attempt(site):
    booking = BookingFactory(notes="By the window", service__title="Haircut")
    delivery = delivery_of(booking)
    AttemptFactory(delivery=delivery, status_code=None, error="The connection was refused.")
    response = site.get(url_of(Delivery, "change", delivery.pk))
    shown = text(response)
    assert "Haircut" in shown
    assert f"/admin/bookings/booking/{booking.pk}/change/" in shown
    assert f"/admin/bookings/webhook/{delivery.webhook_id}/change/" in shown
    assert "500 Internal Server Error" in shown
    assert "<pre>No.</pre>" in shown
    assert "The connection was refused." in shown
    assert shown.count("after 84 ms") == 2
    assert "Next attempt" in shown
    assert "(Asia/Tokyo)" in shown
    head, body = card(response, "Request").text.split("\n\n", 1)
    assert head.splitlines()[0] == f"POST {delivery.webhook.url}"
    assert f"webhook-id: {delivery.pk}" in head
    [content] = contents([delivery])
    assert json.loads(body) == json.loads(dumps(content))
    assert "By the window" in body


def test_a_delivery_about_a_deleted_booking_says_so(site):
    booking = BookingFactory()
    delivery = delivery_of(booking)
    booking.delete()
    assert "a booking that was deleted" in text(site.get(url_of(Delivery, "change", delivery.pk)))


def test_a_message_is_sent_again_from_its_page(site):
    delivery = DeliveryFactory(status="failed", next_attempt_at=None)
    shown = text(site.get(url_of(Delivery, "change", delivery.pk)))
    assert "Send again" in shown
    site.post(url_of(Delivery, "act", delivery.pk, "redeliver"))
    delivery.refresh_from_db()
    assert (delivery.status, delivery.next_attempt_at is None) == ("pending", False)
    assert "Sent again." in text(site.get(url_of(Delivery, "history", delivery.pk)))


def test_the_page_of_a_webhook_shows_its_last_deliveries_and_links_to_all_of_them(site):
    webhook = WebhookFactory(failing_since=timezone.now())
    mine = DeliveryFactory.create_batch(3, webhook=webhook)
    other = DeliveryFactory()
    shown = text(site.get(url_of(Webhook, "change", webhook.pk)))
    assert "failing" in shown
    for each in mine:
        assert url_of(Delivery, "change", each.pk) in shown
    assert url_of(Delivery, "change", other.pk) not in shown
    everything = f"{url_of(Delivery, 'changelist')}?webhook__id__exact={webhook.pk}"
    assert everything in shown
    listed = text(site.get(everything))
    assert url_of(Delivery, "change", mine[0].pk) in listed
    assert url_of(Delivery, "change", other.pk) not in listed


def test_the_page_of_a_webhook_has_only_the_buttons_that_its_state_allows(site):
    def buttons(webhook):
        response = site.get(url_of(Webhook, "change", webhook.pk))
        return [each["words"] for each in response.context["row_buttons"]]

    assert buttons(WebhookFactory()) == ["Send a test", "Switch off"]
    assert buttons(WebhookFactory(is_active=False)) == ["Switch on"]
    without_admin = WebhookFactory(owner=None)
    assert buttons(without_admin) == ["Switch on", "Switch off"]
    shown = text(site.get(url_of(Webhook, "change", without_admin.pk)))
    assert "Its owner is no longer an admin." in shown


def test_pages_take_the_same_number_of_queries_for_many_rows(site):
    webhook = WebhookFactory()

    def queries(path):
        with CaptureQueriesContext(connection) as captured:
            text(site.get(path))
        return len(captured)

    paths = [url_of(Webhook, "change", webhook.pk), url_of(Delivery, "changelist")]
    delivery_of(BookingFactory(), webhook=webhook)
    few = [queries(path) for path in paths]
    for _ in range(5):
        AttemptFactory(delivery=delivery_of(BookingFactory(), webhook=webhook))
    assert [queries(path) for path in paths] == few
    assert max(few) <= 12


@pytest.mark.one_server("opens the home page in a transaction that has changed a reference table")
def test_the_home_page_lists_failing_and_stopped_webhooks(site):
    failing = WebhookFactory(failing_since=timezone.now())
    given_up = WebhookFactory(
        failing_since=timezone.now(), is_active=False, disabled_reason="No attempt has succeeded."
    )
    without_admin = WebhookFactory(owner=None)
    WebhookFactory(is_active=False)  # An admin has switched it off, so it is not listed.
    fine = WebhookFactory()
    cards = {each["name"]: each["shown"] for each in site.get("/admin/").context["cards"]}
    shown = cards["webhooks"]
    assert shown["count"] == 1  # Only webhooks that are on and fail are counted.
    assert [each["title"] for each in shown["lines"]] == [
        failing.url,
        given_up.url,
        without_admin.url,
    ]
    assert shown["lines"][2]["reason"].startswith("Its owner is no longer an admin.")
    listed = text(site.get(shown["count_url"]))
    assert url_of(Webhook, "change", failing.pk) in listed
    assert url_of(Webhook, "change", given_up.pk) not in listed
    assert url_of(Webhook, "change", fine.pk) not in listed
    succeeding = text(site.get(f"{url_of(Webhook, 'changelist')}?failing_since__isnull=True"))
    assert url_of(Webhook, "change", fine.pk) in succeeding
    assert url_of(Webhook, "change", failing.pk) not in succeeding


def test_an_erased_owner_of_a_webhook_is_shown_as_a_former_user(site):
    webhook = WebhookFactory()
    path = reverse("admin:accounts_user_change", args=[webhook.owner_id])
    assert path in text(site.get(url_of(Webhook, "change", webhook.pk)))
    erase_user(user_id=webhook.owner_id, actor=AdminFactory(), at=timezone.now())
    shown = text(site.get(url_of(Webhook, "change", webhook.pk)))
    assert path not in shown
    assert "a former user" in shown
    assert "deleted.invalid" not in shown


def test_a_pause_is_shown_only_until_it_ends(site):
    now = timezone.now()
    webhook = WebhookFactory(failing_since=now, paused_until=now + timedelta(minutes=5))
    assert "Messages wait for a retry until" in text(
        site.get(url_of(Webhook, "change", webhook.pk))
    )
    Webhook.objects.update(paused_until=now - timedelta(minutes=5))
    assert "Messages wait for a retry until" not in text(
        site.get(url_of(Webhook, "change", webhook.pk))
    )


def test_a_search_for_an_id_finds_the_delivery_without_an_or_in_sql(site):
    delivery = delivery_of(BookingFactory())
    delivery_of(BookingFactory())
    for sought in (delivery.pk, delivery.event.booking_id):
        with CaptureQueriesContext(connection) as queries:
            response = site.get(url_of(Delivery, "changelist"), {"q": str(sought)})
        assert [each.pk for each in response.context["cl"].result_list] == [delivery.pk]
        searches = [each["sql"] for each in queries if "bookings_delivery" in each["sql"]]
        # With OR, PostgreSQL could not search each table through its own index.
        assert not [each for each in searches if " OR " in each]


def test_a_response_of_deeply_nested_json_is_shown_as_it_is(site):
    delivery = DeliveryFactory()
    response = "[" * 1024 + "]" * 1024
    AttemptFactory(delivery=delivery, response=response)
    assert response in text(site.get(url_of(Delivery, "change", delivery.pk)))


def test_json_responses_are_indented_and_equal_responses_are_not_repeated(site):
    delivery = DeliveryFactory()
    Attempt.objects.all().delete()
    for response in ('{"error":"no \\"email\\""}', "<h1>Bad</h1>", "<h1>Bad</h1>", ""):
        AttemptFactory(delivery=delivery, response=response)
    shown = text(site.get(url_of(Delivery, "change", delivery.pk)))
    assert "<pre></pre>" not in shown
    assert shown.count("&lt;h1&gt;Bad&lt;/h1&gt;") == shown.count("the same as above") == 1
    assert "{\n  &quot;error&quot;: &quot;no \\&quot;email\\&quot;&quot;\n}" in shown


@pytest.mark.parametrize(
    ("status", "words"), [(404, "404 Not Found"), (599, "599"), (None, "no answer")]
)
def test_an_attempt_shows_its_status_or_its_error(site, status, words):
    delivery = DeliveryFactory()
    AttemptFactory(delivery=delivery, status_code=status, error="" if status else "no answer")
    shown = text(site.get(url_of(Delivery, "change", delivery.pk)))
    assert f'{words}<span class="quiet below">after 84 ms</span>' in shown


def test_the_list_of_deliveries_says_what_each_is_about(site):
    booking = BookingFactory(service__title="Haircut")
    delivery_of(booking)
    DeliveryFactory(event=None, type="test")
    shown = text(site.get(url_of(Delivery, "changelist")))
    assert "Haircut, " in shown
    assert "a test" in shown


def test_a_webhook_is_deleted_after_a_confirmation(site):
    webhook = WebhookFactory()
    path = url_of(Webhook, "delete", webhook.pk)
    assert "The log of its deliveries is deleted" in text(site.get(path))
    response = site.post(path, {"post": "yes"})
    assert response["Location"] == url_of(Webhook, "changelist")
    assert not Webhook.objects.exists()
