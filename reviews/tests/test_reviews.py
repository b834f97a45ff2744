"""The API of reviews, and the rating totals of services."""

from datetime import timedelta
from functools import partial
from uuid import UUID, uuid4

import pytest
import time_machine
from django.db import DatabaseError, IntegrityError, transaction
from django.utils import timezone

from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory
from bookings.models import Booking, BookingEvent
from bookings.services import change_status, delete_booking
from bookings.tests.factories import TUESDAY, BookingFactory
from bookit.errors import database_error_facts
from bookit.tests.crowd import at_once, deadlocks, run, starting_line, tally
from bookit.tests.expect import problem
from catalog.models import Service
from catalog.tests.factories import CalendarFactory, ServiceFactory
from reviews import services
from reviews.models import Review
from reviews.services import BookingNotCompleted, ReviewExists
from reviews.tests.factories import ReviewFactory

pytestmark = pytest.mark.django_db

Status = Booking.Status


@pytest.fixture
def user():
    return UserFactory(name="Ana Silva")


@pytest.fixture
def service():
    return ServiceFactory(calendar=CalendarFactory(provider=ProviderFactory()), capacity=100)


@pytest.fixture
def as_user(api, user):
    return api.as_(user)


@pytest.fixture
def as_admin(api):
    return api.as_(AdminFactory())


def completed(service, user=None, seat=1):
    return BookingFactory(
        service=service, user=user or UserFactory(), seat=seat, status=Status.COMPLETED
    )


@pytest.fixture
def booking(user, service):
    return completed(service, user)


def write(booking, rating=5, comment=""):
    """Review a booking as its user."""
    return services.create_review(
        actor=booking.user, booking_id=booking.pk, rating=rating, comment=comment, at=timezone.now()
    )


@pytest.fixture
def review(booking):
    return write(booking, rating=4, comment="Good.")


def rating(service):
    """Return the stored count, sum and average of a service's ratings."""
    return Service.objects.values_list("rating_count", "rating_sum", "rating_average").get(
        pk=service.pk
    )


class TestCreate:
    def test_users_can_review_their_completed_bookings(self, as_user, user, booking, service):
        response = as_user.post(
            "/reviews", {"booking_id": str(booking.pk), "rating": 4, "comment": "Good."}
        )
        assert response.status_code == 201
        body = response.json()
        assert UUID(body["id"]).version == 7
        assert body == {
            "id": body["id"],
            "booking_id": str(booking.pk),
            "service_id": str(service.pk),
            "user_id": str(user.pk),
            "author_name": "Ana Silva",
            "rating": 4,
            "comment": "Good.",
            "created_at": body["created_at"],
            "updated_at": body["created_at"],
        }

    def test_the_location_shows_the_created_review(self, api, as_user, booking):
        response = as_user.post("/reviews", {"booking_id": str(booking.pk), "rating": 5})
        assert response["Location"] == f"http://testserver/reviews/{response.json()['id']}"
        assert api.get(response["Location"]).json() == response.json()

    @pytest.mark.parametrize("status", [status for status in Status if status != "completed"])
    def test_only_completed_bookings_are_reviewed(self, as_user, user, service, status):
        booking = BookingFactory(user=user, service=service, status=status)
        response = as_user.post("/reviews", {"booking_id": str(booking.pk), "rating": 5})
        problem(response, 409, "booking_not_completed")
        assert not Review.objects.exists()
        assert rating(service) == (0, 0, None)

    def test_a_booking_cannot_be_reviewed_twice(self, as_user, review, booking, service):
        response = as_user.post("/reviews", {"booking_id": str(booking.pk), "rating": 1})
        problem(response, 409, "review_exists")
        assert rating(service) == (1, 4, 4)

    def test_a_booking_can_be_reviewed_again_once_its_review_is_deleted(
        self, as_user, review, booking
    ):
        as_user.delete(f"/reviews/{review.pk}")
        response = as_user.post("/reviews", {"booking_id": str(booking.pk), "rating": 1})
        assert response.status_code == 201

    def test_nobody_can_review_the_booking_of_another_user(self, api, as_admin, booking, service):
        provider = api.as_(service.calendar.provider)
        for client in (api.as_(UserFactory()), provider, as_admin):
            response = client.post("/reviews", {"booking_id": str(booking.pk), "rating": 5})
            problem(response, 403, "permission_denied")
        assert not Review.objects.exists()

    def test_an_unknown_booking_is_refused(self, as_user):
        response = as_user.post("/reviews", {"booking_id": str(uuid4()), "rating": 5})
        problem(response, 400, "validation_error", "booking_id")

    def test_missing_fields_are_named(self, as_user):
        problem(as_user.post("/reviews", {}), 400, "validation_error", "booking_id", "rating")

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("rating", 0),
            ("rating", 6),
            ("rating", -1),
            ("rating", 4.5),
            ("rating", "good"),
            ("rating", None),
            ("rating", [5]),
            ("rating", 10**30),
            ("rating", True),
            ("comment", None),
            ("comment", "c" * 5001),
            ("comment", "\0"),
            ("comment", ["Good."]),
            ("stars", 5),
        ],
    )
    def test_an_invalid_field_is_named_and_nothing_is_stored(
        self, as_user, user, service, review, field, value
    ):
        other = completed(service, user, seat=2)
        body = {"booking_id": str(other.pk), "rating": 5, field: value}
        problem(as_user.post("/reviews", body), 400, "validation_error", field)
        response = as_user.patch(f"/reviews/{review.pk}", {field: value})
        problem(response, 400, "validation_error", field)
        assert rating(service) == (1, 4, 4)
        assert Review.objects.values_list("rating", "comment").get() == (4, "Good.")

    @pytest.mark.parametrize("value", [None, "", "x", 5, []])
    def test_an_invalid_id_is_named(self, as_user, value):
        response = as_user.post("/reviews", {"booking_id": value, "rating": 5})
        problem(response, 400, "validation_error", "booking_id")

    def test_read_only_fields_in_the_request_are_ignored(self, as_user, user, service, review):
        shown = as_user.get(f"/reviews/{review.pk}").json()
        other = completed(service, user, seat=2)
        ids = {"user_id": str(uuid4()), "service_id": str(uuid4())}
        body = {**shown, **ids, "booking_id": str(other.pk), "author_name": "Nobody"}
        created = as_user.post("/reviews", body).json()
        assert created["id"] != shown["id"]
        assert created["created_at"] > shown["created_at"]
        for name in ("user_id", "service_id", "author_name"):
            assert created[name] == shown[name]


class TestRead:
    def test_anyone_reads_reviews(self, api, review):
        (row,) = api.get("/reviews").json()["results"]
        assert row == api.get(f"/reviews/{review.pk}").json()
        assert row["comment"] == "Good."

    def test_a_review_shows_the_current_name_of_its_author(self, api, review, user):
        user.name = "Ana Costa"
        user.save()
        assert api.get(f"/reviews/{review.pk}").json()["author_name"] == "Ana Costa"

    def test_no_review_shows_an_email_address(self, api, review, user):
        assert user.email.encode() not in api.get("/reviews").content

    def test_the_newest_reviews_come_first(self, api, service):
        for seat in (1, 2, 3):
            with time_machine.travel(TUESDAY + timedelta(seconds=seat)):
                write(completed(service, seat=seat), rating=seat)
        for path in ("/reviews", f"/services/{service.pk}/reviews"):
            rows = api.get(path).json()["results"]
            assert [row["rating"] for row in rows] == [3, 2, 1]

    def test_reviews_are_filtered_by_service_and_rating(self, api, service):
        other = ServiceFactory()
        for seat in (1, 2):
            write(completed(service, seat=seat), rating=seat)
        write(completed(other), rating=2)

        def found(path):
            return sorted(
                (row["service_id"] == str(service.pk), row["rating"])
                for row in api.get(path).json()["results"]
            )

        assert found("/reviews") == [(False, 2), (True, 1), (True, 2)]
        assert found(f"/reviews?service_id={service.pk}") == [(True, 1), (True, 2)]
        assert found("/reviews?rating=2") == [(False, 2), (True, 2)]
        assert found(f"/reviews?rating=1&service_id={other.pk}") == []
        assert found(f"/services/{service.pk}/reviews") == [(True, 1), (True, 2)]

    @pytest.mark.parametrize(
        ("ordering", "expected"),
        [
            ("created_at", [3, 1, 2]),
            ("-created_at", [2, 1, 3]),
            ("rating", [1, 2, 3]),
            ("-rating", [3, 2, 1]),
        ],
    )
    def test_reviews_are_in_the_requested_order(self, api, service, ordering, expected):
        for seat, stars in enumerate((3, 1, 2), start=1):
            with time_machine.travel(TUESDAY + timedelta(seconds=seat)):
                write(completed(service, seat=seat), rating=stars)
        rows = api.get(f"/reviews?ordering={ordering}").json()["results"]
        assert [row["rating"] for row in rows] == expected

    def test_a_cursor_reads_every_review_once(self, api, service):
        with time_machine.travel(TUESDAY, tick=False):
            for seat in range(1, 6):
                write(completed(service, seat=seat))
        page = api.get("/reviews?limit=2&cursor=").json()
        ids = [row["id"] for row in page["results"]]
        while page["next"]:
            page = api.get(page["next"]).json()
            ids += [row["id"] for row in page["results"]]
        assert len(ids) == len(set(ids)) == 5
        assert ids == [row["id"] for row in api.get("/reviews").json()["results"]]

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("rating=0", "rating"),
            ("rating=6", "rating"),
            ("rating=five", "rating"),
            ("service_id=x", "service_id"),
            ("ordering=comment", "ordering"),
            ("user_id=1", "user_id"),
        ],
    )
    def test_an_invalid_parameter_is_named(self, api, query, field):
        problem(api.get(f"/reviews?{query}"), 400, "validation_error", field)

    @pytest.mark.parametrize("pk", [uuid4(), "x", "1", "0" * 32])
    @pytest.mark.parametrize("method", ["get", "patch", "delete"])
    def test_an_unknown_review_is_not_found(self, as_admin, pk, method):
        problem(getattr(as_admin, method)(f"/reviews/{pk}"), 404, "not_found")


class TestChange:
    def test_an_author_changes_rating_and_comment(self, as_user, review, service):
        response = as_user.patch(f"/reviews/{review.pk}", {"rating": 1, "comment": "Not so good."})
        assert response.status_code == 200
        body = response.json()
        assert (body["rating"], body["comment"]) == (1, "Not so good.")
        assert body["updated_at"] > body["created_at"]
        assert as_user.get(f"/reviews/{review.pk}").json() == body
        assert rating(service) == (1, 1, 1)

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            ({"rating": 2}, (2, "Good.")),
            ({"comment": ""}, (4, "")),
            ({"comment": "Better."}, (4, "Better.")),
            ({}, (4, "Good.")),
        ],
    )
    def test_omitted_fields_stay_unchanged(self, as_user, review, service, body, expected):
        changed = as_user.patch(f"/reviews/{review.pk}", body).json()
        assert (changed["rating"], changed["comment"]) == expected
        assert rating(service)[:2] == (1, expected[0])

    def test_read_only_fields_in_the_request_are_ignored(self, as_user, review):
        shown = as_user.get(f"/reviews/{review.pk}").json()
        ids = {name: str(uuid4()) for name in ("id", "booking_id", "service_id", "user_id")}
        body = {**shown, **ids, "author_name": "Nobody", "created_at": "2001-01-01T00:00:00Z"}
        response = as_user.patch(f"/reviews/{review.pk}", body)
        assert response.status_code == 200
        assert response.json() == {**shown, "updated_at": response.json()["updated_at"]}

    def test_other_users_cannot_change_a_review(self, api, as_admin, review, service):
        provider = api.as_(service.calendar.provider)
        for client in (api.as_(UserFactory()), provider, as_admin):
            response = client.patch(f"/reviews/{review.pk}", {"rating": 1})
            problem(response, 403, "permission_denied")
        assert rating(service) == (1, 4, 4)


class TestDelete:
    @pytest.mark.parametrize("who", ["as_user", "as_admin"])
    def test_the_author_and_admins_delete_a_review(self, request, who, api, review, service):
        client = request.getfixturevalue(who)
        response = client.delete(f"/reviews/{review.pk}")
        assert (response.status_code, response.content) == (204, b"")
        problem(api.get(f"/reviews/{review.pk}"), 404, "not_found")
        problem(client.delete(f"/reviews/{review.pk}"), 404, "not_found")
        assert rating(service) == (0, 0, None)

    def test_other_users_cannot_delete_a_review(self, api, review, service):
        for client in (api.as_(UserFactory()), api.as_(service.calendar.provider)):
            problem(client.delete(f"/reviews/{review.pk}"), 403, "permission_denied")
        assert rating(service) == (1, 4, 4)


class TestRating:
    def test_a_service_shows_the_average_of_its_reviews(self, api, service):
        for seat, stars in enumerate((5, 4, 4), start=1):
            write(completed(service, seat=seat), rating=stars)
        shown = api.get(f"/services/{service.pk}").json()
        assert (shown["rating_average"], shown["rating_count"]) == (4.33, 3)

    def test_every_change_of_a_review_updates_the_rating(self, service):
        first, second = (write(completed(service, seat=seat), rating=5) for seat in (1, 2))
        assert rating(service) == (2, 10, 5)
        services.update_review(
            review_id=first.pk, actor=first.user, changes={"rating": 2}, at=timezone.now()
        )
        assert rating(service) == (2, 7, 3.5)
        services.delete_review(review_id=second.pk, actor=second.user)
        assert rating(service) == (1, 2, 2)

    def test_a_review_does_not_change_the_rating_of_other_services(self, service):
        other = ServiceFactory()
        write(completed(service), rating=5)
        assert rating(other) == (0, 0, None)

    def test_a_review_is_kept_when_its_booking_is_deleted(
        self, api, as_admin, review, booking, service
    ):
        assert as_admin.delete(f"/bookings/{booking.pk}").status_code == 204
        shown = api.get(f"/reviews/{review.pk}").json()
        assert shown["booking_id"] is None
        assert (shown["rating"], shown["service_id"]) == (4, str(service.pk))
        assert rating(service) == (1, 4, 4)
        assert api.get(f"/services/{service.pk}/reviews").json()["count"] == 1

    def test_the_author_changes_and_deletes_a_review_whose_booking_was_deleted(
        self, as_admin, as_user, review, booking
    ):
        as_admin.delete(f"/bookings/{booking.pk}")
        assert as_user.patch(f"/reviews/{review.pk}", {"rating": 5}).json()["rating"] == 5
        assert as_user.delete(f"/reviews/{review.pk}").status_code == 204

    def test_a_reviewed_service_is_in_use_even_without_bookings(
        self, as_admin, review, booking, service
    ):
        as_admin.delete(f"/bookings/{booking.pk}")
        problem(as_admin.delete(f"/services/{service.pk}"), 409, "service_in_use")

    def test_a_booking_marked_as_no_show_keeps_its_review(self, as_admin, review, booking):
        response = as_admin.patch(f"/bookings/{booking.pk}", {"status": "no_show"})
        assert response.status_code == 200
        assert Review.objects.get().booking == booking

    def test_a_review_that_cannot_be_counted_is_not_stored(self, booking, service):
        run(
            "CREATE FUNCTION no_count() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'cannot count'; END $$"
        )
        run(
            "CREATE TRIGGER no_count BEFORE UPDATE ON catalog_service"
            " FOR EACH ROW EXECUTE FUNCTION no_count()"
        )
        with pytest.raises(DatabaseError, match="cannot count"):
            write(booking)
        assert not Review.objects.exists()


class TestQueries:
    """The number of queries does not depend on the number of reviews."""

    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("/reviews?limit=100", 1),
            ("/reviews?limit=100&rating=5&ordering=-rating", 1),
            ("/reviews?limit=100&cursor=", 1),
            # One query for the service, and one for its reviews.
            ("/services/{}/reviews?limit=100", 2),
        ],
    )
    def test_the_number_of_queries_of_a_list_does_not_depend_on_its_length(
        self, api, service, path, expected, django_assert_num_queries
    ):
        for rows in (2, 50):
            for seat in range(Review.objects.count() + 1, rows + 1):
                ReviewFactory(booking=completed(service, seat=seat))
            with django_assert_num_queries(expected):
                response = api.get(path.format(service.pk))
            assert len(response.json()["results"]) == rows

    def test_showing_a_review_takes_one_query(self, api, review, django_assert_num_queries):
        with django_assert_num_queries(1):
            api.get(f"/reviews/{review.pk}")


class TestDatabase:
    @pytest.mark.parametrize("stars", [0, 6])
    def test_ratings_are_from_one_to_five(self, review, stars):
        with pytest.raises(IntegrityError) as refused, transaction.atomic():
            run("UPDATE reviews_review SET rating = %s", [stars])
        assert database_error_facts(refused.value)[1] == "review_rating_1_to_5"

    def test_a_booking_has_at_most_one_review(self, review):
        with pytest.raises(IntegrityError) as refused, transaction.atomic():
            run(
                "INSERT INTO reviews_review"
                " (id, calendar_id, booking_id, service_id, user_id, rating, comment)"
                " SELECT gen_random_uuid(), calendar_id, booking_id, service_id, user_id, 5, ''"
                " FROM reviews_review"
            )
        assert database_error_facts(refused.value)[0] == "23505"  # unique_violation


@pytest.mark.django_db(transaction=True)
class TestRaces:
    def test_one_of_ten_concurrent_reviews_of_a_booking_is_stored(self, api, booking, service):
        client = api.as_(booking.user)
        body = {"booking_id": str(booking.pk), "rating": 5}
        outcomes = at_once([partial(client.post, "/reviews", body) for _ in range(10)])
        responses = [outcome.value for outcome in outcomes]
        assert sorted(response.status_code for response in responses) == [201] + [409] * 9
        for response in responses:
            if response.status_code == 409:
                problem(response, 409, "review_exists")
        assert rating(service) == (1, 5, 5)

    def test_without_the_lock_the_constraint_still_allows_only_one_review(self, booking):
        # `create_review` is not called: it locks the booking, so its inserts could not race.
        review = {
            "calendar": booking.calendar,
            "booking": booking,
            "service": booking.service,
            "user": booking.user,
            "rating": 5,
        }
        with starting_line("reviews_review") as set_off:
            outcomes = set_off([partial(Review.objects.create, **review) for _ in range(5)])
        assert tally(outcomes) == {None: 1, IntegrityError: 4}

    def test_concurrent_ratings_add_up(self, service):
        bookings = [completed(service, seat=seat) for seat in range(1, 21)]
        deadlocks_before = deadlocks()
        stars = [number % 5 + 1 for number in range(20)]
        outcomes = at_once(
            [
                partial(write, booking, rating=rated)
                for booking, rated in zip(bookings, stars, strict=True)
            ]
        )
        assert tally(outcomes) == {None: 20}
        assert rating(service) == (20, sum(stars), 3)
        reviews = [outcome.value for outcome in outcomes]
        changes = [
            partial(
                services.update_review,
                review_id=review.pk,
                actor=review.user,
                changes={"rating": 1},
                at=timezone.now(),
            )
            for review in reviews
        ]
        deletions = [
            partial(services.delete_review, review_id=review.pk, actor=review.user)
            for review in reviews[:10]
        ]
        outcomes = at_once(changes + deletions)
        # A change fails if the review was deleted first.
        assert set(tally(outcomes)) <= {None, Review.DoesNotExist}
        assert rating(service) == (10, 10, 1)
        assert deadlocks() == deadlocks_before

    def test_a_rating_is_lost_if_the_sum_is_read_and_written_back(self, service):
        """Control for the test above: `_add_to_ratings` loses no rating, because it adds in SQL."""
        first, second = (Service.objects.get(pk=service.pk) for _ in range(2))
        for stale in (first, second):
            stale.rating_sum += 5
            stale.rating_count += 1
            stale.save(update_fields=["rating_sum", "rating_count"])
        assert rating(service) == (1, 5, 5)

    def test_a_concurrent_no_show_comes_either_before_or_after_the_review(self, service):
        admin = AdminFactory()
        for seat in range(1, 21):
            booking = completed(service, seat=seat)
            reviewed, marked = at_once(
                [
                    partial(write, booking),
                    partial(
                        change_status,
                        booking_id=booking.pk,
                        status=Status.NO_SHOW,
                        actor=admin,
                        at=timezone.now(),
                    ),
                ]
            )
            assert marked.error is None
            if reviewed.error is None:
                happened = booking.events.order_by("id").values_list("type", flat=True)
                assert [*happened] == [BookingEvent.Type.REVIEWED, BookingEvent.Type.NO_SHOW]
            else:
                assert isinstance(reviewed.error, BookingNotCompleted)
        assert rating(service)[0] == Review.objects.count()

    def test_a_concurrent_deletion_of_the_booking_comes_before_or_after_the_review(self, service):
        admin = AdminFactory()
        for seat in range(1, 21):
            booking = completed(service, seat=seat)
            reviewed, deleted = at_once(
                [
                    partial(write, booking),
                    partial(delete_booking, booking_id=booking.pk, actor=admin, at=timezone.now()),
                ]
            )
            assert deleted.error is None
            if reviewed.error is None:
                assert Review.objects.get(pk=reviewed.value.pk).booking is None
            else:
                assert reviewed.error.errors.keys() == {"booking_id"}
        assert rating(service)[0] == Review.objects.count()

    def test_concurrent_deletions_of_a_review_subtract_its_rating_once(self, service):
        write(completed(service, seat=2), rating=3)
        review = write(completed(service), rating=5)
        delete = partial(services.delete_review, review_id=review.pk, actor=review.user)
        assert tally(at_once([delete] * 4)) == {None: 1, Review.DoesNotExist: 3}
        assert rating(service) == (1, 3, 3)

    def test_concurrent_calls_of_create_review_store_one_review(self, booking):
        outcomes = at_once([partial(write, booking) for _ in range(6)])
        assert tally(outcomes) == {None: 1, ReviewExists: 5}
