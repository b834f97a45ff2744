"""Formats of Spanish, in addition to Django's."""

SHORT_MONTH_FORMAT = "M Y"
DAY_FORMAT = "D j M Y"
DAY_OF_YEAR_FORMAT = "D j M"
LONG_DAY_FORMAT = r"l, j \d\e F \d\e Y"
LONG_DAY_OF_YEAR_FORMAT = r"l, j \d\e F"
DATETIME_FORMAT = r"j \d\e F \d\e Y, H:i"
