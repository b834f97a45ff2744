"""The card about webhooks on the home page of the admin site."""

from typing import Any

from django.db.models import F, Q
from django.utils.translation import gettext

from bookings.webhooks.models import Delivery, Webhook
from bookit.adminsite import words
from bookit.adminsite.extensions import HOME_CARDS, Glance, HomeCard
from bookit.adminsite.links import list_of, page_of

MAX_WEBHOOKS = 5
# Failing webhooks are counted up to this number.
MAX_COUNTED = 100


def read_webhooks(glance: Glance) -> dict[str, Any]:
    """Return the webhooks that do not get their messages, the longest failing first."""
    failing = Q(is_active=True, failing_since__isnull=False)
    rows = [
        *Webhook.objects.filter(failing | Q(is_active=False) & ~Q(disabled_reason=""))
        .order_by(F("failing_since").asc(nulls_last=True), "id")
        .only("url", "is_active", "failing_since", "disabled_reason")[: MAX_COUNTED + 1]
    ]
    number = sum(row.is_active for row in rows)
    return {
        "count": f"{MAX_COUNTED}+" if number > MAX_COUNTED else number,
        "failing": list_of(Webhook, failing_since__isnull=False, is_active__exact=1),
        "lines": [
            {
                "title": row.url,
                "url": page_of(row),
                "since": row.failing_since and words.moment(row.failing_since, glance.zone),
                "reason": row.disabled_reason and gettext(row.disabled_reason),
            }
            for row in rows[:MAX_WEBHOOKS]
        ],
        "more": len(rows) > MAX_WEBHOOKS,
        "url": list_of(Webhook),
        "failed": list_of(Delivery, status__exact=Delivery.Status.FAILED),
    }


HOME_CARDS.add("webhooks")(
    HomeCard(80, "admin/home/webhooks.html", read_webhooks, "bookings.view_webhook")
)
