"""Stores time off, and publishes slots in advance."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from operator import attrgetter

from bookings.models import Slot
from bookings.slots.recurrence import WEEKDAYS, parse_rule
from bookings.slots.services import change_slot, publish_slots
from bookit.times import day_end, day_start, wall_clock
from bookit.tools.demo.calendars import StoredCalendar, StoredService, named_in_errors
from bookit.tools.demo.chance import Chance
from bookit.tools.demo.dates import WeekTime, YearDay
from bookit.tools.demo.entries import CalendarEntry
from bookit.tools.demo.town import Town
from bookit.tools.demo.window import DAYS_PUBLISHED, DAYS_SINCE_PUBLISHED, covered_days, today
from catalog.models import Service
from catalog.services import create_time_off

# The numbers of seats that stay free in the next two sessions that begin in more than a day, if
# `next_session_full` is set.
SEATS_LEFT = (0, 2)


class Timetable:
    """Stores time off and publishes slots. All of them are created at the same moment.

    Attributes:
        slots: the number of slots that were published.
        time_off: the number of periods of time off that were stored.
    """

    def __init__(self, town: Town, chance: Chance, *, at: datetime) -> None:
        self.town, self.chance, self.at = town, chance, at
        self.published = chance.same_day(at - timedelta(days=DAYS_SINCE_PUBLISHED))
        self.slots = self.time_off = 0

    def store(self, calendar: StoredCalendar) -> None:
        """Store the time off of a calendar and the slots of its services."""
        closed = list(self._closed(calendar.entry))
        for start, end, reason in closed:
            with named_in_errors(calendar.entry):
                create_time_off(
                    calendar_id=calendar.calendar.pk,
                    actor=calendar.provider,
                    at=self.published,
                    start_time=start,
                    end_time=end,
                    reason=reason,
                )
        self.time_off += len(closed)
        for service in calendar.services:
            slots = self._publish(calendar, service)
            self.slots += len(slots)
            for slot in slots:
                # A series cannot leave out the slots during time off.
                if any(slot.start_time < end and start < slot.end_time for start, end, _ in closed):
                    self._cancel(calendar, slot)
                else:
                    service.slots[slot.start_time] = slot
            if service.entry.next_session_full:
                self._choose_seats_left(service)

    def _closed(self, entry: CalendarEntry) -> Iterator[tuple[datetime, datetime, str]]:
        """Yield the periods of a calendar's time off, with their reasons."""
        tz = self.chance.tz
        for day in covered_days(self.at, tz, ahead=DAYS_PUBLISHED):
            if YearDay(day.month, day.day) in self.town.settings.holidays:
                yield day_start(day, tz), day_end(day, tz), "Public holiday"
        for time_off in entry.time_off:
            yield (
                self._instant(time_off.week, time_off.starts),
                self._instant(time_off.week, time_off.ends),
                time_off.reason,
            )

    def _instant(self, week: int, time: WeekTime) -> datetime:
        """Return a time of a week as an instant. Week 0 is the current week."""
        present = today(self.at, self.chance.tz)
        day = present + timedelta(days=7 * week + time.weekday - present.weekday())
        return wall_clock(day, time.minute, self.chance.tz)

    def _publish(self, calendar: StoredCalendar, service: StoredService) -> list[Slot]:
        """Publish the slots of a service, and return them in order."""
        slots: list[Slot] = []
        row = service.service
        if row.mode != Service.Mode.SLOTS or not row.is_active:
            return slots
        days = list(covered_days(self.at, self.chance.tz, ahead=DAYS_PUBLISHED))
        for sessions in service.entry.sessions:
            weekdays = ",".join(WEEKDAYS[weekday] for weekday in sessions.weekdays)
            rule = parse_rule(f"FREQ=WEEKLY;BYDAY={weekdays};UNTIL={days[-1]:%Y%m%d}")
            first_day = next(day for day in days if day.weekday() in sessions.weekdays)
            for minute in sessions.starts:
                with named_in_errors(service.entry):
                    slots += publish_slots(
                        actor=calendar.provider,
                        service_id=row.pk,
                        start_time=wall_clock(first_day, minute, self.chance.tz),
                        rrule=rule,
                        at=self.published,
                    )
        return sorted(slots, key=attrgetter("start_time"))

    def _cancel(self, calendar: StoredCalendar, slot: Slot) -> None:
        change_slot(
            slot_id=slot.pk,
            actor=calendar.provider,
            at=self.published,
            status=Slot.Status.CANCELLED,
        )

    def _choose_seats_left(self, service: StoredService) -> None:
        """Decide how many seats stay free in the next sessions that begin in more than a day."""
        in_a_day = self.at + timedelta(days=1)
        ahead = [slot for start, slot in service.slots.items() if start > in_a_day]
        service.seats_left = {
            slot.pk: seats_left for slot, seats_left in zip(ahead, SEATS_LEFT, strict=False)
        }
