"""A template filter for times of day."""

from datetime import datetime

from django import template

from bookit.times import time_of_day

register = template.Library()


@register.filter(expects_localtime=True)
def clock(local: datetime) -> str:
    """Return the time of day in the current zone; see `time_of_day`."""
    return time_of_day(local)
