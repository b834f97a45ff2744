"""The demo: a made-up town, Porto Claro, and some weeks of bookings around today.

`manage.py seed_demo` stores the town. Its people, businesses, prices and reviews are written in the
files of `porto_claro/`; the README there explains how to change them. The bookings are random, but
with a fixed seed, so the same moment always gives the same town. The ids are the same too, except
the ids of slots, opening hours, time off and the events of bookings.

The modules, each of which imports only modules above it:

    dates      weekdays and times of day, as the files write them
    entries    what the files contain: a dataclass for each kind of TOML table
    town       all files together, and the rules that concern more than one of them
    reader     reads the files; a mistake becomes an error that names the file and the entry
    chance     random moments and ids
    window     the days for which bookings are invented
    people     stores the users
    calendars  stores the calendars and their services
    timetable  stores time off and slots
    drafts     invents a single booking and its history
    planning   decides which times are booked, and stores the bookings
    reviewing  stores the reviews
    histories  stores the events of bookings and reviews
    fill       stores the whole town, in one transaction
"""
