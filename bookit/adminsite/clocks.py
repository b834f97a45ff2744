"""A template filter for times."""

from datetime import datetime

from django import template

from bookit.adminsite.words import dated
from bookit.times import time_of_day

register = template.Library()


@register.filter(expects_localtime=True)
def clock(local: datetime, day_format: str = "") -> str:
    """Return the time of day in the current zone, after the date if its format is given."""
    return dated(local, day_format) if day_format else time_of_day(local)
