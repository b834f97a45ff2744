"""The serializers of providers and their profiles."""

from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import DecimalField, F, OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import Cast, JSONObject, NullIf, Round
from rest_framework import serializers

from accounts.models import User
from accounts.serializers import NameField
from bookit.api.schema import example
from bookit.api.serializers import RowSerializer, StrictSerializer
from catalog.models import Calendar, Service
from catalog.providers.models import MAX_BIOGRAPHY, MAX_URL, validate_picture_url

# A provider is shown with at most this many calendars, and at most this many services.
MAX_SHOWN = 20

RUI = {
    "name": "Rui Costa",
    "biography": "Barber in Porto Claro since 1998.",
    "picture_url": "https://bookit.example.com/rui.jpg",
}


class ProvidedCalendarSerializer(StrictSerializer):
    """A calendar of a provider."""

    id = serializers.UUIDField()
    name = serializers.CharField()


class ProvidedServiceSerializer(StrictSerializer):
    """A service of a provider."""

    id = serializers.UUIDField()
    title = serializers.CharField()


@example(
    "A barber",
    {
        "id": "0199d3a0-5b1c-7d3e-9c4b-2a7f8e6d5c31",
        **RUI,
        "calendars": [{"id": "0199d3a0-6a31-7e8a-a0f5-3e6a4c1b8d07", "name": "Rui's chair"}],
        "services": [{"id": "0199d3a0-6a3b-7c55-8f0d-1f6f2b7c9d42", "title": "Haircut"}],
        "rating_average": 4.67,
        "rating_count": 3,
    },
)
class ProviderSerializer(RowSerializer):
    """A provider, as anyone sees them."""

    biography = serializers.CharField(read_only=True)
    picture_url = serializers.URLField(read_only=True, allow_null=True)
    calendars = ProvidedCalendarSerializer(
        many=True,
        read_only=True,
        help_text=(
            f"The first {MAX_SHOWN} calendars by name. `GET /calendars?provider_id=` lists all."
        ),
    )
    services = ProvidedServiceSerializer(
        many=True,
        read_only=True,
        help_text=(
            f"The first {MAX_SHOWN} active services by title. `GET /services?provider_id=` lists "
            "all."
        ),
    )
    rating_average = serializers.FloatField(
        read_only=True,
        allow_null=True,
        min_value=1,
        max_value=5,
        help_text="The average of all reviews of the provider's services, or null.",
    )
    rating_count = serializers.IntegerField(read_only=True, min_value=0)

    # An annotation must not have the name of a relation, such as `calendars`, so the annotations
    # have other names than the fields.
    annotations = {
        "profile_biography": F("profile__biography"),
        "profile_picture": F("profile__picture_url"),
        "calendar_list": ArraySubquery(
            Calendar.objects.filter(provider=OuterRef("pk"))
            .order_by("name", "id")
            .values(calendar=JSONObject(id="id", name="name"))[:MAX_SHOWN]
        ),
        "service_list": ArraySubquery(
            Service.objects.filter(calendar__provider=OuterRef("pk"), is_active=True)
            .order_by("title", "id")
            .values(service=JSONObject(id="id", title="title"))[:MAX_SHOWN]
        ),
        "ratings": Subquery(
            Service.objects.filter(calendar__provider=OuterRef("pk"))
            .order_by()
            .values("calendar__provider")
            .annotate(
                rating=JSONObject(
                    average=Round(
                        Cast(Sum("rating_sum"), DecimalField(max_digits=20, decimal_places=2))
                        / NullIf(Sum("rating_count"), 0),
                        precision=2,
                    ),
                    count=Sum("rating_count"),
                )
            )
            .values("rating")
        ),
    }

    class Meta:
        model = User
        fields = [
            *("id", "name", "biography", "picture_url", "calendars", "services"),
            *("rating_average", "rating_count"),
        ]
        read_only_fields = fields

    @classmethod
    def rows(cls, queryset: QuerySet[Any]) -> QuerySet[Any, dict[str, Any]]:
        """Return the rows as dictionaries of the columns that `represent` needs."""
        return queryset.annotate(**cls.annotations).values("id", "name", *cls.annotations)

    @classmethod
    def represent(cls, row: dict[str, Any]) -> dict[str, Any]:
        """Return the representation of a row that `rows` selected."""
        ratings = row["ratings"] or {"average": None, "count": 0}
        return {
            "id": row["id"],
            "name": row["name"],
            "biography": row["profile_biography"] or "",
            "picture_url": row["profile_picture"],
            "calendars": row["calendar_list"],
            "services": row["service_list"],
            "rating_average": ratings["average"],
            "rating_count": ratings["count"],
        }

    @classmethod
    def represent_instance(cls, instance: User) -> dict[str, Any]:  # type: ignore[override]
        """Return the representation of a user, even one that the public list does not contain."""
        return cls.represent(cls.rows(User.objects.filter(pk=instance.pk)).get())


@example("A barber", RUI)
class ProviderChangeSerializer(StrictSerializer):
    """The parts of your own profile that you can change."""

    # A client may send back a provider that it has read. Its other fields are ignored.
    ignored = frozenset(ProviderSerializer.Meta.fields)

    name = NameField(required=False, help_text="The name of your account.")
    biography = serializers.CharField(required=False, allow_blank=True, max_length=MAX_BIOGRAPHY)
    picture_url = serializers.CharField(
        required=False,
        allow_null=True,
        max_length=MAX_URL,
        validators=[validate_picture_url],
        help_text="An HTTPS URL. BookIt only passes it on: browsers load the picture from there.",
    )
