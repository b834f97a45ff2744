"""Exports: iCalendar files of the admin site's lists, and day sheets for printing."""
