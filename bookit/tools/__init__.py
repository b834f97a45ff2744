"""The demo town, the benchmark, the catalogues of translations, and the export of all records.

These modules may import every app; no app imports them.
"""
