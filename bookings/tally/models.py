"""How often bookings have reached each status."""

from django.db import models
from django.db.models import Q


class BookingTally(models.Model):
    """The total of the events that have been counted so far. This table has only one row."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    # The id of a transaction of server 0. The total contains the events of all of its transactions
    # with lower ids; see `BookingEvent.transaction`.
    transaction = models.BigIntegerField()
    # The same id for each other server of a distributed database, by the number of the server.
    positions = models.JSONField(default=dict, db_default={})
    # For each status, how many times a booking has reached it.
    counts = models.JSONField(default=dict)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="booking_tally_one_row")]

    def __str__(self) -> str:
        return f"events before transaction {self.transaction}"
