"""Serializers of reviews."""

from django.db.models import F
from rest_framework import serializers

from bookit.api.schema import example
from bookit.api.serializers import RowSerializer, StrictSerializer
from reviews.models import Review

FIVE_STARS = {
    "id": "0199d3a5-1f2b-7c4d-8e6f-9a0b1c2d3e4f",
    "booking_id": "0199d3a4-02aa-7d0c-9b1f-6f0e5b8f2a11",
    "service_id": "0199d3a0-6a3b-7c55-8f0d-1f6f2b7c9d42",
    "user_id": "0199d3a1-7c1e-7f61-b2ab-0a1c5d3f9e10",
    "author_name": "Ana Silva",
    "rating": 5,
    "comment": "Exactly what I asked for.",
    "created_at": "2026-12-02T09:00:00Z",
    "updated_at": "2026-12-02T09:00:00Z",
}


@example("Five stars", FIVE_STARS)
class ReviewSerializer(RowSerializer):
    """A review of a completed booking."""

    booking_id = serializers.UUIDField(
        read_only=True, allow_null=True, help_text="Null if the booking has been deleted."
    )
    service_id = serializers.UUIDField(read_only=True)
    user_id = serializers.UUIDField(read_only=True)
    author_name = serializers.CharField(read_only=True)
    rating = serializers.IntegerField(read_only=True, min_value=1, max_value=5)

    annotations = {"author_name": F("user__name")}

    class Meta:
        model = Review
        fields = [
            "id",
            "booking_id",
            "service_id",
            "user_id",
            "author_name",
            "rating",
            "comment",
            "created_at",
            "updated_at",
        ]
        read_only_fields = fields


@example("Four stars", {"rating": 4})
class ReviewChangeSerializer(StrictSerializer):
    """The fields of a review that can be changed."""

    # A client may send back a review that it has read. Its other fields are ignored.
    ignored = frozenset(ReviewSerializer.Meta.fields)

    rating = serializers.IntegerField(min_value=1, max_value=5, required=False)
    comment = serializers.CharField(required=False, allow_blank=True, max_length=5000)


@example(
    "Five stars",
    {
        "booking_id": "0199d3a4-02aa-7d0c-9b1f-6f0e5b8f2a11",
        "rating": 5,
        "comment": "Exactly what I asked for.",
    },
)
class ReviewCreateSerializer(StrictSerializer):
    """A rating of a booking, with an optional comment."""

    ignored = frozenset(ReviewSerializer.Meta.fields)

    booking_id = serializers.UUIDField()
    rating = serializers.IntegerField(min_value=1, max_value=5)
    comment = serializers.CharField(required=False, allow_blank=True, max_length=5000)
