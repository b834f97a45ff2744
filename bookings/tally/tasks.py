"""The job that counts how often bookings have reached each status."""

from procrastinate.contrib.django import app

from bookings.tally import services as tally


@app.periodic(cron="* * * * *")
@app.task(name="bookings.count_events", queueing_lock="bookings.count_events")
def count_events(timestamp: int) -> None:
    """Add the new events to the total, every minute."""
    tally.count_events()
