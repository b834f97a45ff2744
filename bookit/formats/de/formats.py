"""Formats of German, in addition to Django's."""

SHORT_MONTH_FORMAT = "M Y"
DAY_FORMAT = "D, j. M Y"
DAY_OF_YEAR_FORMAT = "D, j. M"
LONG_DAY_FORMAT = "l, j. F Y"
LONG_DAY_OF_YEAR_FORMAT = "l, j. F"
