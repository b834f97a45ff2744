from django.db import migrations, models

from bookit.database.constraints import CompositeForeignKey


class Migration(migrations.Migration):
    dependencies = [
        ("bookings", "0002_constraints"),
        ("catalog", "0002_constraints"),
        ("reviews", "0001_initial"),
    ]

    operations = [
        migrations.AddConstraint(
            model_name="review",
            constraint=models.CheckConstraint(
                condition=models.Q(("rating__gte", 1), ("rating__lte", 5)),
                name="review_rating_1_to_5",
            ),
        ),
        migrations.AddConstraint(
            model_name="review",
            constraint=CompositeForeignKey(
                fields=("calendar", "booking"),
                name="review_booking_on_calendar",
                on_delete="SET NULL ({booking})",
                to="bookings.Booking",
                to_fields=("calendar", "id"),
            ),
        ),
        migrations.AddConstraint(
            model_name="review",
            constraint=CompositeForeignKey(
                fields=("service", "calendar"),
                name="review_service_on_calendar",
                to="catalog.Service",
                to_fields=("id", "calendar"),
            ),
        ),
    ]
