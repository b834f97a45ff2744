"""Exports: iCalendar files of lists, and day sheets for printing."""
