"""Endpoints of reviews."""

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.permissions import AllowAny
from rest_framework.request import Request

from accounts.permissions import allowed_by, signed_in
from bookings.models import Booking
from bookit.api.etags import conditional
from bookit.api.schema import errors
from bookit.api.views import RowViewSet
from bookit.database.citus.lookups import by_id
from bookit.database.prepared import Bound, Prepared
from bookit.idempotency.views import idempotent
from bookit.responses import Response
from catalog.models import Service
from reviews import services
from reviews.filters import ReviewFilter
from reviews.models import Review
from reviews.serializers import ReviewChangeSerializer, ReviewCreateSerializer, ReviewSerializer

REVIEWS_OF_SERVICE = Prepared(
    lambda service_id: Review.objects.filter(service=service_id), service_id=Service._meta.pk
)


@extend_schema_view(
    list=extend_schema(tags=["Reviews"], summary="List reviews"),
    retrieve=extend_schema(tags=["Reviews"], summary="Show a review"),
)
class ReviewViewSet(RowViewSet):
    """The endpoints of reviews."""

    reads_replicas = True
    serializer_class = ReviewSerializer
    filterset_class: type[ReviewFilter] | None = ReviewFilter
    ordering_fields: dict[str, str] = {"created_at": "created_at", "rating": "rating"}
    default_ordering = ["-created_at"]
    cursor_pages = True
    input_classes = {
        "create": ReviewCreateSerializer,
        "partial_update": ReviewChangeSerializer,
    }
    queryset = Review.objects.all()
    # Anyone can read reviews.
    permission_classes = [AllowAny]
    action_permissions = {
        "create": allowed_by(services.check_booked),
        "partial_update": allowed_by(services.check_wrote),
        "destroy": allowed_by(services.check_may_delete),
    }
    named_in_body = {"create": ("booking_id", lambda pk: by_id(Booking.objects.all(), pk).get())}

    @extend_schema(
        tags=["Reviews"],
        summary="Review a booking",
        responses={201: ReviewSerializer},
        extensions=errors("booking_not_completed", "review_exists"),
    )
    @idempotent
    def create(self, request: Request) -> Response:
        """Review one of your own bookings, once it is completed."""
        return self.created(
            services.create_review(actor=signed_in(request), at=timezone.now(), **self.checked())
        )

    @extend_schema(tags=["Reviews"], summary="Change a review", responses=ReviewSerializer)
    @conditional
    def partial_update(self, request: Request, pk: Any) -> Response:
        """Change the rating or the comment of your own review."""
        return self.shown(
            services.update_review(
                review_id=pk, actor=signed_in(request), changes=self.checked(), at=timezone.now()
            )
        )

    @extend_schema(tags=["Reviews"], summary="Delete a review")
    @conditional
    def destroy(self, request: Request, pk: Any) -> Response:
        """Delete your own review. Admins and permitted staff can delete any."""
        services.delete_review(review_id=pk, actor=signed_in(request))
        return Response(status=204)


@extend_schema_view(
    list=extend_schema(tags=["Reviews"], summary="List a service's reviews, newest first")
)
class ServiceReviewViewSet(ReviewViewSet):
    """The reviews of one service."""

    filterset_class = None
    ordering_fields = {}

    def listed(self) -> Bound:
        """Return the reviews of the service that the path names.

        Raises:
            Service.DoesNotExist: the service does not exist.
        """
        service = Service.objects.only("pk").get(pk=self.kwargs["service_id"])
        return REVIEWS_OF_SERVICE(service_id=service.pk)
