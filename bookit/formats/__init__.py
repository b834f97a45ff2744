"""How each language writes dates, where emails and pages differ from Django's formats.

`FORMAT_MODULE_PATH` names this package. `date_format` and the filter `date` accept the names of
these formats, as they accept the names of Django's own. All languages use the 24-hour clock. The
formats of a day contain its weekday: long, or abbreviated. "Of year" means that the year is left
out. The format for prose is used inside sentences.
"""
