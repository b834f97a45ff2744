"""Registers a user who books and reviews a service, with a client from openapi-python-client.

Arguments: the URL of the server, the id of a service, and an admin's access token.
"""

import sys
from datetime import UTC, datetime, timedelta
from uuid import UUID

from bookit_client import AuthenticatedClient, Client
from bookit_client.api.accounts import auth_register
from bookit_client.api.bookings import bookings_create, bookings_status_change
from bookit_client.api.catalog import services_availability_show, services_list
from bookit_client.api.reviews import reviews_create, reviews_list
from bookit_client.models import (
    BookingCreateRequest,
    BookingStatus,
    PatchedStatusChangeRequest,
    Problem,
    RegisterRequest,
    ReviewCreateRequest,
    ReviewsListRating,
)

url, service, admin_token = sys.argv[1:]
anyone = Client(url, raise_on_unexpected_status=True)
admin = AuthenticatedClient(url, admin_token, raise_on_unexpected_status=True)

session = auth_register.sync(
    client=anyone,
    body=RegisterRequest("Ana Silva", "ana.python@example.com", "seven quiet otters"),
)
ana = AuthenticatedClient(url, session.access_token, raise_on_unexpected_status=True)

assert UUID(service) in [each.id for each in services_list.sync(client=anyone).results]
found = services_availability_show.sync(
    UUID(service), client=anyone, from_=datetime.now(UTC) + timedelta(days=1)
)
booking = bookings_create.sync(
    client=ana,
    body=BookingCreateRequest(service_id=UUID(service), start_time=found.times[0].start_time),
)
assert booking.status == BookingStatus.CONFIRMED

refused = reviews_create.sync(client=ana, body=ReviewCreateRequest(booking.id, 5))
assert isinstance(refused, Problem)
assert refused.code == "booking_not_completed"

bookings_status_change.sync(
    booking.id, client=admin, body=PatchedStatusChangeRequest(BookingStatus.COMPLETED)
)
review = reviews_create.sync(client=ana, body=ReviewCreateRequest(booking.id, 5, "Perfect."))
assert review.rating == 5

page = reviews_list.sync(client=anyone, rating=ReviewsListRating.VALUE_5, service_id=UUID(service))
assert [each.comment for each in page.results] == ["Perfect."]
