"""How each language writes dates, where emails and pages differ from Django's formats.

`FORMAT_MODULE_PATH` names this package. Templates and `date_format` accept the names of these
formats, as they accept the names of Django's own. All languages use the 24-hour clock. The formats
of a day begin with its weekday; "of year" means that the year is left out.
"""
