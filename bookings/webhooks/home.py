"""The card about webhooks on the home page of the admin site."""

from typing import Any

from django.db.models import F, OuterRef, Q
from django.utils.translation import gettext

from bookings.webhooks.models import Delivery, Webhook
from bookit.adminsite import words
from bookit.adminsite.extensions import HOME_CARDS, Glance, HomeCard
from bookit.adminsite.links import list_of, page_of
from bookit.database.counts import number_of

MAX_WEBHOOKS = 5
# Failing webhooks are counted up to this number.
MAX_COUNTED = 100
# The columns that show whether the owner of a webhook is an admin.
OWNER = ("owner__is_active", "owner__role")
# The number of failed messages to a webhook. BookIt no longer retries them.
FAILED = number_of(
    Delivery.objects.filter(webhook=OuterRef("pk"), status=Delivery.Status.FAILED), by="webhook"
)


def read_webhooks(glance: Glance) -> dict[str, Any]:
    """Return the webhooks that do not get their messages, the longest failing first.

    Webhooks that an admin has merely switched off are left out. The same query also counts failed
    messages, including those to other webhooks. It reads at most `MAX_COUNTED` + 1 webhooks.
    """
    failing = Q(is_active=True, failing_since__isnull=False)
    disabled = Q(is_active=False) & ~Q(disabled_reason="")
    without_admin = Q(is_active=True) & ~Q(pk__in=Webhook.objects.delivering())
    found = [
        *Webhook.objects.annotate(failed=FAILED, is_shown=failing | disabled | without_admin)
        .filter(Q(is_shown=True) | Q(failed__gt=0))
        .select_related("owner")
        .order_by("-is_shown", F("failing_since").asc(nulls_last=True), "id")
        .only("url", "is_active", "failing_since", "disabled_reason", *OWNER)[: MAX_COUNTED + 1]
    ]
    rows = [row for row in found if row.is_shown]
    number = sum(row.is_active and row.failing_since is not None for row in rows)
    failed = sum(row.failed for row in found)
    return {
        "count": f"{MAX_COUNTED}+" if number > MAX_COUNTED else number,
        "count_url": list_of(Webhook, failing_since__isnull=False, is_active__exact=1),
        "lines": [
            {
                "title": row.url,
                "url": page_of(row),
                "since": row.failing_since and words.moment(row.failing_since, glance.zone),
                "reason": row.why_off and gettext(row.why_off),
            }
            for row in rows[:MAX_WEBHOOKS]
        ],
        "more": len(rows) > MAX_WEBHOOKS,
        "url": list_of(Webhook),
        "failed": failed,
        "failed_url": list_of(Delivery, status__exact=Delivery.Status.FAILED),
    }


HOME_CARDS.add("webhooks")(
    HomeCard(80, "admin/home/webhooks.html", read_webhooks, "bookings.view_webhook")
)
