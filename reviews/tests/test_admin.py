"""The list and the pages of reviews in the admin site."""

import pytest
from django.contrib import admin
from django.utils import timezone

from accounts.privacy.services import erase_user
from accounts.tests.factories import AdminFactory, UserFactory
from bookings.tests.factories import BookingFactory
from bookit.tests.plans import planning_without
from catalog.tests.factories import ServiceFactory
from reviews.models import Review
from reviews.tests.factories import ReviewFactory

pytestmark = pytest.mark.django_db

LIST = "/admin/reviews/review/"


def reviewed(title, email, comment):
    booking = BookingFactory(
        service=ServiceFactory(title=title), user=UserFactory(email=email), status="completed"
    )
    return ReviewFactory(booking=booking, comment=comment)


def test_a_search_finds_reviews_by_comment_service_author_or_id(client):
    client.force_login(AdminFactory())
    yoga = reviewed("Yoga", "ana@example.com", "Calm and friendly.")
    haircut = reviewed("Haircut", "ben@example.com", "")
    for words, expected in [
        ("", {yoga, haircut}),
        ("friendly calm", {yoga}),
        ("hair", {haircut}),
        ("ANA@example", {yoga}),
        ("example.com", {yoga, haircut}),
        (f" {haircut.pk} ", {haircut}),
        ("nobody", set()),
    ]:
        response = client.get(LIST, {"q": words})
        assert {*response.context["cl"].result_list} == expected, words


def test_a_review_by_a_former_user_names_no_account(client):
    review = reviewed("Yoga", "ana@example.com", "Calm and friendly.")
    client.force_login(AdminFactory())
    page = f"{LIST}{review.pk}/change/"
    account = f"/admin/accounts/user/{review.user_id}/change/"
    assert account in client.get(page).content.decode()
    erase_user(user_id=review.user_id, actor=AdminFactory(), at=timezone.now())
    text = client.get(page).content.decode()
    assert "a former user" in text
    assert account not in text
    assert "deleted.invalid" not in text


def test_a_search_for_reviews_does_not_read_all_rows():
    reviewed("Yoga", "ana@example.com", "Calm and friendly.")
    page = admin.site._registry[Review]
    conditions = page.search_conditions(None, "friendly")
    assert len(conditions) == 3  # the comment, the service and the author
    for condition in conditions:
        # With few rows, PostgreSQL would rather read whole tables, or whole indexes in their order.
        with planning_without("seqscan", "indexscan", "indexonlyscan"):
            plan = Review.objects.filter(condition).order_by().explain()
        assert "Seq Scan" not in plan
        # The texts are searched through their indexes, not compared row by row.
        assert "Filter: (upper" not in plan
