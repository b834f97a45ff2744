"""The date formats that emails and pages use in addition to or instead of Django's, by language.

`FORMAT_MODULE_PATH` names this package. The function `date_format` and the template filter `date`
accept the names of these formats, like the names of Django's own formats. All languages use the
24-hour clock. Formats whose names begin with DAY contain the abbreviated weekday, and those whose
names begin with LONG_DAY or PROSE_DAY contain the whole weekday. PROSE_DAY is for use inside
sentences. OF_YEAR means that the year is left out.

The modules `gaps` and `months` contain no formats, but texts for `makemessages`.
"""
