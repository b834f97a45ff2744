"""A small town to look around in: what `manage.py seed_demo` stores.

Porto Claro and everybody in it are made up. The data stands first, the town's tables; how some
weeks of bookings around now are dreamt up from it comes after. Chance decides much, from a fixed
seed: the same moment always gives the same town, ids included (but for those of slots and time
off).
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from operator import attrgetter
from random import Random
from typing import Any
from unicodedata import normalize
from uuid import UUID
from zoneinfo import ZoneInfo

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.db import connection, transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from accounts.models import User
from bookings.availability.terms import Terms, terms_of
from bookings.events import follow_nothing_up
from bookings.models import Booking, BookingEvent, Slot
from bookings.services import EVENT_OF
from bookings.slots.recurrence import parse_rule
from bookings.slots.services import change_slot, publish_slots
from bookit.times import day_end, day_start, wall_clock
from catalog.models import Service
from catalog.services import create_calendar, create_service, create_time_off
from reviews.models import Review

Status = Booking.Status

ZONE = ZoneInfo("Europe/Lisbon")
CURRENCY = "EUR"
SEED = 1755  # Any other number gives another town.

# Every customer has Ana's password, and every provider Rui's.
ADMIN_PASSWORD, CUSTOMER_PASSWORD, PROVIDER_PASSWORD = (
    "lighthouse-keeper",
    "morning-by-the-sea",
    "open-nine-to-five",
)
ACCOUNTS = [
    ("admin", "admin@example.com", ADMIN_PASSWORD),
    ("user", "ana@example.com", CUSTOMER_PASSWORD),
    ("provider", "rui@example.com", PROVIDER_PASSWORD),
    ("provider", "helena@example.com", PROVIDER_PASSWORD),
    ("provider", "beatriz@example.com", PROVIDER_PASSWORD),
    ("provider", "luisa@example.com", PROVIDER_PASSWORD),
    ("provider", "marta@example.com", PROVIDER_PASSWORD),
]

# How many days of bookings there are behind and ahead of today.
DAYS_BEHIND, DAYS_AHEAD = 12, 10

DAY = timedelta(days=1)
WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]

# How long a booking lies before its provider looks at it.
UNANSWERED = timedelta(hours=8)

# Slots are published up to that many days ahead, and were so for longer than anybody books.
DAYS_PUBLISHED, DAYS_SINCE_PUBLISHED = 42, 40

# Days on which nobody in town works, as (month, day).
HOLIDAYS = [(1, 1), (12, 25)]

# How many days the same person leaves, at least, between two visits to a place.
DAYS_BETWEEN_VISITS = {
    "Advice": 30,
    "Barber": 10,
    "Crafts": 7,
    "Fitness": 2,
    "Languages": 6,
    "Music": 7,
    "Pets": 24,
    "Photography": 60,
    "Physiotherapy": 4,
    "Tennis": 3,
    "Therapy": 7,
    "Tutoring": 5,
    "Workspaces": 2,
    "Yoga": 2,
}

# --- Who offers what --------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Offer:
    """A service as the town knows it.

    Args:
        sessions: the starts that are published as slots or, in mode open, that people agree on, by
            days of the week (`("Mon Wed", "18:30")`); without any they come whenever it is free.
        share: how often it is chosen, next to the others of its place.
        sought_after: the next session is full, and the one after it nearly so.
        for_children: booked by a parent.
        comments: what is said about this one and no other, see `Place`.
        rules: further fields of `Service`.
    """

    title: str
    category: str
    price: str
    minutes: int
    description: str
    sessions: tuple[tuple[str, str], ...] = ()
    share: int = 1
    sought_after: bool = False
    for_children: bool = False
    comments: tuple[tuple[int, str], ...] = ()
    rules: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Absence:
    """Time off.

    Args:
        week: 0 is this week, 1 the next.
        days: the first and the last, `"Mon-Sun"`.
        hours: when it begins on the first day, and when it ends on the last.
    """

    week: int
    days: str
    reason: str
    hours: str = "00:00-24:00"


@dataclass(frozen=True, eq=False)
class Place:
    """A calendar, its opening hours by days of the week, and what is offered on it.

    Args:
        demand: the part of its time, or of its seats, that is booked on a usual day.
        regulars: how many of the customers come here.
        comments: what is said about it, each with its stars.
    """

    name: str
    hours: tuple[tuple[str, str], ...]
    offers: tuple[Offer, ...]
    demand: float
    regulars: int = 0
    absences: tuple[Absence, ...] = ()
    men_only: bool = False
    notes: tuple[str, ...] = ()
    comments: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Business:
    """Somebody who sells time, and their places."""

    owner: str
    email: str
    places: tuple[Place, ...]


BUSINESSES = (
    Business(
        "Rui Barbosa",
        "rui@example.com",
        (
            Place(
                "Barbearia do Rui",
                (("Tue Wed Thu Fri", "09:00-13:00 14:30-19:00"), ("Sat", "09:00-16:00")),
                (
                    Offer(
                        "Classic Haircut",
                        "Barber",
                        "16.00",
                        30,
                        "A proper cut with scissors, finished at the neck with the razor. One"
                        " barber and one chair, so nobody waits and nobody rushes you.",
                        share=4,
                        rules={"cancellation_notice_minutes": 120},
                    ),
                    Offer(
                        "Haircut and Beard Trim",
                        "Barber",
                        "24.00",
                        45,
                        "Haircut and beard in one go, shaped to suit each other. Ends with beard"
                        " oil and a warm towel.",
                        share=3,
                        comments=(
                            (
                                5,
                                "My beard has never been this tidy. Worth it for the towel alone.",
                            ),
                        ),
                        rules={"cancellation_notice_minutes": 120},
                    ),
                    Offer(
                        "Hot Towel Shave",
                        "Barber",
                        "18.00",
                        30,
                        "The old-fashioned shave: hot towels, badger brush and open razor. Please"
                        " come with at least two days of growth.",
                        rules={"cancellation_notice_minutes": 120},
                    ),
                ),
                demand=0.42,
                regulars=29,
                men_only=True,
                notes=(
                    "Short at the sides, longer on top, please.",
                    "Same as last time.",
                    "Getting married on Saturday!",
                    "I may be five minutes late, coming from the train.",
                ),
                comments=(
                    (5, "Best cut in town. Rui listens first and cuts afterwards."),
                    (5, "Booked at eleven at night, in the chair at nine the next morning."),
                    (5, "Quick, friendly and exactly what I asked for."),
                    (4, "Very good cut. The radio could be a little quieter."),
                    (3, "Good haircut, but he was running fifteen minutes late."),
                    (4, "Solid work and a fair price. Parking nearby is hopeless, come on foot."),
                    (5, "I have been coming for years; now without phoning three times."),
                    (2, "Shorter than I had asked for. It grows back, but still."),
                    (5, "Took his time with the neckline. Recommended."),
                    (4, "A no-nonsense barber. Cash or card, both fine."),
                ),
            ),
        ),
    ),
    Business(
        "Diego Amaral",
        "diego@example.com",
        (
            Place(
                "Navalha, Diego's chair",
                (("Mon Tue Thu Fri", "10:00-14:00 15:00-20:00"), ("Sat", "10:00-18:00")),
                (
                    Offer(
                        "Skin Fade with Diego",
                        "Barber",
                        "20.00",
                        45,
                        "A fade from skin to whatever length you like, with clippers and patience."
                        " Bring a picture if you have one in mind.",
                        share=3,
                        comments=(
                            (5, "Cleanest fade I have had since I moved here."),
                            (3, "The fade is good, but the music was too loud to talk."),
                            (4, "Great result, slightly cramped place."),
                            (5, "Diego is an artist. Brought a photo, left looking like it."),
                        ),
                        rules={
                            "requires_confirmation": False,
                            "cancellation_notice_minutes": 180,
                        },
                    ),
                    Offer(
                        "Kids' Haircut, up to 12",
                        "Barber",
                        "12.00",
                        30,
                        "For small heads that do not like to sit still. There are comics, and a"
                        " booster seat shaped like a racing car.",
                        for_children=True,
                        comments=(
                            (
                                5,
                                "My son asked when he could go back. The racing car did it.",
                            ),
                            (4, "Good with children, quick and calm."),
                        ),
                        rules={
                            "requires_confirmation": False,
                            "cancellation_notice_minutes": 60,
                        },
                    ),
                ),
                demand=0.36,
                regulars=28,
                notes=(
                    "Same length as last time.",
                    "In a bit of a hurry, my train leaves on the hour.",
                ),
                comments=(
                    (5, "On time to the minute."),
                    (5, "Worth the walk up the hill."),
                ),
            ),
            # The same hours and the same length: whoever does not mind books either.
            Place(
                "Navalha, Jonas's chair",
                (("Mon Tue Thu Fri", "10:00-14:00 15:00-20:00"), ("Sat", "10:00-18:00")),
                (
                    Offer(
                        "Skin Fade with Jonas",
                        "Barber",
                        "20.00",
                        45,
                        "The same fade on the other chair. Jonas is quieter than Diego, and just as"
                        " particular about the line at the neck.",
                        rules={
                            "requires_confirmation": False,
                            "cancellation_notice_minutes": 180,
                        },
                    ),
                ),
                demand=0.24,
                regulars=18,
                absences=(Absence(1, "Sat-Sat", "A wedding"),),
                comments=(
                    (5, "No small talk, a perfect cut. My kind of barber."),
                    (4, "Very neat. He took his time, so plan the whole hour."),
                    (5, "Got a time on the same afternoon, on the other chair."),
                ),
            ),
        ),
    ),
    Business(
        "Helena Matos",
        "helena@example.com",
        (
            Place(
                "Maré Yoga, Sea Hall",
                (
                    ("Mon Tue Wed Thu Fri", "07:00-12:00 17:00-21:00"),
                    ("Sat", "09:00-13:00"),
                    ("Sun", "18:00-20:00"),
                ),
                (
                    Offer(
                        "Vinyasa Yoga",
                        "Yoga",
                        "12.00",
                        60,
                        "A flowing class for people who know their way around a sun salutation."
                        " Twelve places in the hall with the view; mats are there.",
                        sessions=(
                            ("Mon Wed", "07:30 18:30"),
                            ("Fri", "07:30"),
                            ("Sat", "10:00"),
                        ),
                        sought_after=True,
                        comments=(
                            (5, "Demanding in the right way. I slept like a stone afterwards."),
                            (3, "Good class, but faster than I expected from the description."),
                            (5, "Sunlight on the water, and nobody talks about work."),
                        ),
                        rules={
                            "mode": "slots",
                            "requires_confirmation": False,
                            "capacity": 12,
                            "cancellation_notice_minutes": 240,
                            "max_advance_days": 28,
                        },
                    ),
                    Offer(
                        "Yin Yoga and Breathing",
                        "Yoga",
                        "12.00",
                        60,
                        "Long, quiet postures on the floor and fifteen minutes of breathing. No"
                        " experience needed, warm socks recommended.",
                        sessions=(("Tue", "18:30"), ("Sun", "18:30")),
                        comments=(
                            (5, "After a month of this my back has stopped complaining."),
                            (5, "Never thought that I could sit still for an hour."),
                        ),
                        rules={
                            "mode": "slots",
                            "requires_confirmation": False,
                            "capacity": 12,
                            "cancellation_notice_minutes": 240,
                            "max_advance_days": 28,
                        },
                    ),
                ),
                demand=0.9,
                regulars=40,
                notes=(
                    "Bad left knee, I will take it easy.",
                    "A place by the window, if possible.",
                    "I may have to leave five minutes early.",
                    "I bring my own mat.",
                ),
                comments=(
                    (5, "The best hour of my week. The view of the water does the rest."),
                    (5, "Helena corrects gently and explains why. I have learned a lot."),
                    (4, "Lovely class. With twelve people it gets a little tight at the back."),
                    (4, "Great teacher, and the mats are clean. One shower only, though."),
                    (5, "Calm, warm, never preachy."),
                    (4, "I wish there were one more class in the evening, they fill up fast."),
                    (2, "Started ten minutes late and ended on time."),
                ),
            ),
            Place(
                "Maré Yoga, Garden Room",
                (("Tue Thu", "09:30-12:00"), ("Sat", "11:00-13:30")),
                (
                    Offer(
                        "Gentle Yoga for Beginners",
                        "Yoga",
                        "10.00",
                        75,
                        "Slow and simple, with chairs and blocks wherever they help. A small group"
                        " of eight, most of them over fifty.",
                        sessions=(("Tue Thu", "10:00"), ("Sat", "11:30")),
                        rules={
                            "mode": "slots",
                            "requires_confirmation": False,
                            "capacity": 8,
                            "cancellation_notice_minutes": 240,
                            "max_advance_days": 28,
                        },
                    ),
                ),
                demand=0.5,
                regulars=14,
                notes=("New hip since March.", "My doctor told me to try this."),
                comments=(
                    (5, "I am 67 and was afraid of it. No reason at all, everybody is welcome."),
                    (5, "A small group, a patient teacher, and tea afterwards."),
                    (4, "Just right for a start. After some weeks one wants a little more."),
                    (5, "My balance is better already."),
                    (3, "Pleasant, but the room is chilly in the morning."),
                    (5, "The kindest class in town."),
                ),
            ),
        ),
    ),
    Business(
        "Inês Carvalho",
        "ines@example.com",
        (
            Place(
                "Inês Carvalho, mathematics",
                (("Mon Tue Wed Thu Fri", "15:00-20:00"), ("Sat", "10:00-13:00")),
                (
                    Offer(
                        "Mathematics Tutoring, Years 7 to 9",
                        "Tutoring",
                        "22.00",
                        60,
                        "Homework, fractions, equations and the test next week, one pupil at a"
                        " time. I taught at a school for eleven years.",
                        share=3,
                        for_children=True,
                        comments=((5, "My daughter now explains equations to me."),),
                        rules={
                            "min_notice_minutes": 240,
                            "cancellation_notice_minutes": 1440,
                            "max_advance_days": 60,
                        },
                    ),
                    Offer(
                        "Exam Preparation, Mathematics A",
                        "Tutoring",
                        "34.00",
                        90,
                        "Old exam papers against the clock, then every mistake taken apart. For"
                        " years 11 and 12; bring your calculator.",
                        for_children=True,
                        comments=(
                            (4, "Patient and well prepared. Hard to get a time before an exam."),
                        ),
                        rules={
                            "step_minutes": 30,
                            "min_notice_minutes": 240,
                            "cancellation_notice_minutes": 1440,
                            "max_advance_days": 60,
                        },
                    ),
                ),
                demand=0.5,
                regulars=20,
                notes=(
                    "Test on Thursday, mostly fractions.",
                    "Linear functions, please.",
                    "He says that he understands it. He does not.",
                    "We bring last week's test along.",
                ),
                comments=(
                    (5, "From a 9 to a 14 in one term. Thank you, Inês!"),
                    (5, "She found in one hour what had been missing for two years."),
                    (4, "Good teacher, fair price. The room is a little warm."),
                    (3, "Fine lessons, but we had hoped for more exercises to take home."),
                    (5, "He goes there without grumbling, which says it all."),
                    (5, "Clear, calm and very well organised."),
                ),
            ),
        ),
    ),
    Business(
        "Oliver Grant",
        "oliver@example.com",
        (
            Place(
                "Oliver Grant, English",
                (("Mon Tue Wed Thu", "09:00-12:00 16:00-20:00"), ("Fri", "09:00-13:00")),
                (
                    Offer(
                        "English Conversation",
                        "Languages",
                        "24.00",
                        60,
                        "An hour of talking about what interests you, with the mistakes written"
                        " down for afterwards. All levels from A2 up.",
                        share=2,
                        comments=(
                            (
                                5,
                                "An hour flies by. Oliver remembers what we said last time.",
                            ),
                            (4, "Very helpful. I would like a little more grammar."),
                            (3, "Nice hour, but more chat than lesson for my taste."),
                        ),
                        rules={"min_notice_minutes": 180, "cancellation_notice_minutes": 720},
                    ),
                    Offer(
                        "Business English and Interview Practice",
                        "Languages",
                        "36.00",
                        60,
                        "Mails, meetings and the interview on Friday, practised until it sits."
                        " Send me the job advertisement beforehand.",
                        comments=(
                            (
                                5,
                                "Got the job! The practice interview was harder than the real one.",
                            ),
                        ),
                        rules={"min_notice_minutes": 180, "cancellation_notice_minutes": 720},
                    ),
                ),
                demand=0.34,
                regulars=14,
                notes=(
                    "Interview next week, a position in logistics.",
                    "I would like to talk about the news.",
                    "Around B1, I think.",
                ),
                comments=(
                    (5, "The list of mistakes at the end is gold."),
                    (4, "Good conversation and good coffee."),
                ),
            ),
        ),
    ),
    Business(
        "Beatriz Nogueira",
        "beatriz@example.com",
        (
            Place(
                "Beatriz Nogueira, physiotherapist",
                (("Mon Tue Wed Thu Fri", "08:30-12:30 14:00-18:30"),),
                (
                    Offer(
                        "Physiotherapy, First Assessment",
                        "Physiotherapy",
                        "55.00",
                        60,
                        "We look at how you move, find out where it hurts and make a plan."
                        " Please bring reports and pictures if you have any.",
                        rules={
                            "step_minutes": 15,
                            "buffer_after_minutes": 15,
                            "min_notice_minutes": 120,
                            "cancellation_notice_minutes": 1440,
                            "max_advance_days": 90,
                        },
                    ),
                    Offer(
                        "Physiotherapy Session",
                        "Physiotherapy",
                        "42.00",
                        45,
                        "Treatment and exercises after your plan, for backs, shoulders and knees."
                        " Wear something that you can move in.",
                        share=4,
                        comments=(
                            (5, "Two sessions and I could sleep on that side again."),
                            (3, "Helped, but forty-five minutes were forty when it came to it."),
                            (5, "The shoulder moves again. I should have come months ago."),
                        ),
                        rules={
                            "step_minutes": 15,
                            "buffer_after_minutes": 15,
                            "min_notice_minutes": 120,
                            "cancellation_notice_minutes": 1440,
                            "max_advance_days": 90,
                        },
                    ),
                    Offer(
                        "Sports Massage",
                        "Physiotherapy",
                        "40.00",
                        45,
                        "Firm massage for legs and back after long runs or long days at a desk."
                        " Not while an injury is fresh: book an assessment first.",
                        share=2,
                        comments=((5, "My legs were like new for the race."),),
                        rules={
                            "step_minutes": 15,
                            "buffer_after_minutes": 15,
                            "min_notice_minutes": 120,
                            "cancellation_notice_minutes": 1440,
                            "max_advance_days": 90,
                        },
                    ),
                ),
                demand=0.48,
                regulars=26,
                absences=(Absence(1, "Wed-Wed", "A course in Coimbra", "13:00-24:00"),),
                notes=(
                    "Right shoulder, since the weekend.",
                    "Lower back again.",
                    "Four weeks after the knee operation.",
                    "Half marathon on Sunday.",
                ),
                comments=(
                    (5, "She explains what she does and why. The exercises are doable at home."),
                    (4, "Very competent. Not exactly gentle, but it works."),
                    (5, "Took my knee seriously when nobody else did."),
                    (4, "Good treatment; the waiting room is the corridor."),
                    (4, "Thorough and friendly. Evenings are hard to get."),
                ),
            ),
        ),
    ),
    Business(
        "Teresa Valente",
        "teresa@example.com",
        (
            Place(
                "Teresa Valente, piano",
                (("Mon Tue Thu", "14:00-20:00"), ("Sat", "09:30-12:30")),
                (
                    Offer(
                        "Piano Lesson",
                        "Music",
                        "28.00",
                        45,
                        "For beginners of any age and for those who come back to it after years."
                        " On a real Blüthner grand; borrow my scores if you like.",
                        for_children=True,
                        rules={
                            "buffer_after_minutes": 15,
                            "step_minutes": 60,
                            "min_notice_minutes": 720,
                            "cancellation_notice_minutes": 1440,
                        },
                    ),
                ),
                demand=0.5,
                regulars=16,
                notes=(
                    "We are still on the first Bach minuet.",
                    "No time to practise this week, sorry.",
                ),
                comments=(
                    (5, "He plays for his grandmother now, of his own will."),
                    (5, "Strict about rhythm, generous about everything else."),
                    (4, "A fine teacher. The stairs to the third floor are steep."),
                    (5, "What an instrument, and what patience."),
                    (4, "Good progress in two months. Bring a pencil!"),
                    (3, "She is good, but very classical; our son wanted film music."),
                ),
            ),
        ),
    ),
    Business(
        "Sofia Lindgren",
        "sofia@example.com",
        (
            Place(
                "Sofia Lindgren Photography",
                (("Wed Thu Fri", "10:00-18:00"), ("Sat Sun", "09:00-13:00")),
                (
                    Offer(
                        "Portrait Session by the Harbour",
                        "Photography",
                        "95.00",
                        60,
                        "An hour between boats and blue doors, and fifteen edited pictures in two"
                        " days. If it rains we move, at no cost.",
                        share=2,
                        comments=(
                            (5, "The first pictures of me that I like."),
                            (5, "It rained, we moved, no fuss. Lovely person."),
                        ),
                        rules={
                            "buffer_before_minutes": 15,
                            "buffer_after_minutes": 30,
                            "step_minutes": 30,
                            "min_notice_minutes": 1440,
                            "cancellation_notice_minutes": 2880,
                            "max_advance_days": 120,
                        },
                    ),
                    Offer(
                        "Family Photo Walk",
                        "Photography",
                        "160.00",
                        120,
                        "Two hours on the beach or in the old town, at the pace of your smallest."
                        " Forty edited pictures; dogs are family too.",
                        comments=(
                            (5, "Three children, one dog, and everybody looks at the camera."),
                        ),
                        rules={
                            "buffer_before_minutes": 15,
                            "buffer_after_minutes": 30,
                            "step_minutes": 30,
                            "min_notice_minutes": 1440,
                            "cancellation_notice_minutes": 2880,
                            "max_advance_days": 120,
                        },
                    ),
                ),
                demand=0.3,
                regulars=16,
                absences=(Absence(2, "Mon-Sun", "A week in the Azores"),),
                notes=("Two children and a labrador.", "Pictures for a job application."),
                comments=(
                    (4, "Lovely pictures. A little windy out there, bring a jacket."),
                    (4, "Not cheap, but you get what you pay for."),
                ),
            ),
        ),
    ),
    Business(
        "Marta Quintela",
        "marta@example.com",
        (
            Place(
                "Cais 7, Atlantic Room",
                (("Mon Tue Wed Thu Fri", "08:00-20:00"),),
                (
                    Offer(
                        "Meeting Room for Ten, by the Hour",
                        "Workspaces",
                        "25.00",
                        60,
                        "A long table, a large screen and a window onto the water. Coffee is"
                        " included, and so is the cable that you forgot.",
                        rules={
                            "requires_confirmation": False,
                            "buffer_after_minutes": 15,
                            "step_minutes": 15,
                            "min_notice_minutes": 30,
                            "cancellation_notice_minutes": 120,
                        },
                    ),
                ),
                demand=0.24,
                regulars=12,
                notes=("We are nine.", "Could the table be set up for a workshop?"),
                comments=(
                    (5, "Everything worked at once, even the screen."),
                    (4, "Nice room, good coffee. A bit of an echo on calls."),
                    (5, "Our team meets here every week now."),
                    (3, "The group before us left late, and the dishes with us."),
                    (5, "Booked ten minutes after the old room fell through. Saved us."),
                ),
            ),
            Place(
                "Cais 7, Phone Booth",
                (("Mon Tue Wed Thu Fri", "08:00-20:00"),),
                (
                    Offer(
                        "Phone Booth, Half an Hour",
                        "Workspaces",
                        "5.00",
                        30,
                        "Quiet, lit and with a stable line, for the call that matters. For one"
                        " person, standing or on the stool.",
                        rules={
                            "requires_confirmation": False,
                            "cancellation_notice_minutes": 15,
                        },
                    ),
                ),
                demand=0.1,
                regulars=12,
                comments=(
                    (5, "Silent inside. Did two interviews in it."),
                    (4, "Does what it should. It gets warm after twenty minutes."),
                    (3, "The light flickers in video calls."),
                ),
            ),
            Place(
                "Cais 7, Shared Desks",
                (("Mon Tue Wed Thu Fri", "09:00-17:00"),),
                (
                    Offer(
                        "Day Pass for a Shared Desk",
                        "Workspaces",
                        "18.00",
                        480,
                        "One of eight desks, from nine to five, with fast internet and a locker."
                        " Coffee from the good machine as often as you like.",
                        sessions=(("Mon Tue Wed Thu Fri", "09:00"),),
                        rules={
                            "capacity": 8,
                            "requires_confirmation": False,
                            "cancellation_notice_minutes": 720,
                        },
                    ),
                ),
                demand=0.4,
                regulars=14,
                notes=("A desk by the window, if there is one.",),
                comments=(
                    (5, "I get more done here in a day than at home in two."),
                    (4, "Friendly people, fast line. Bring headphones for the afternoon."),
                    (5, "Marta runs this place with love."),
                    (4, "Good chairs. One more plug per desk and I am happy."),
                    (3, "Fine, but there was a drill next door all morning."),
                ),
            ),
        ),
    ),
    Business(
        "Paulo Rezende",
        "paulo@example.com",
        (
            Place(
                "Clube de Ténis, Court 1",
                (("Mon Tue Wed Thu Fri", "08:00-22:00"), ("Sat Sun", "08:00-20:00")),
                (
                    Offer(
                        "Tennis Court 1, Clay",
                        "Tennis",
                        "14.00",
                        60,
                        "Red clay with lights, swept after every hour. Rackets and balls at the"
                        " bar for three euros.",
                        rules={
                            "requires_confirmation": False,
                            "cancellation_notice_minutes": 240,
                            "max_advance_days": 30,
                        },
                    ),
                ),
                demand=0.17,
                regulars=20,
                comments=(
                    (5, "Best clay for miles, and always swept."),
                    (4, "Good court. One of the four lights has been out for a week."),
                    (5, "Booked from the beach, played an hour later."),
                    (4, "A bit slippery after rain, otherwise perfect."),
                    (3, "The players before us took their time leaving."),
                ),
            ),
            Place(
                "Clube de Ténis, Court 2",
                (("Mon Tue Wed Thu Fri", "08:00-22:00"), ("Sat Sun", "08:00-20:00")),
                (
                    Offer(
                        "Tennis Court 2, Hard",
                        "Tennis",
                        "12.00",
                        60,
                        "A fast hard court, resurfaced this spring, with lights. Playable half an"
                        " hour after rain.",
                        rules={
                            "requires_confirmation": False,
                            "cancellation_notice_minutes": 240,
                            "max_advance_days": 30,
                        },
                    ),
                ),
                demand=0.12,
                regulars=16,
                comments=(
                    (5, "The new surface is excellent."),
                    (4, "Good court, windy corner."),
                    (2, "The net was too low, and nobody was there to fix it."),
                    (5, "Cheap, clean, simple to book."),
                ),
            ),
            Place(
                "Paulo Rezende, coach",
                (("Tue Wed Thu Fri", "09:00-12:00 15:00-19:00"), ("Sat", "09:00-13:00")),
                (
                    Offer(
                        "Tennis Lesson with Paulo",
                        "Tennis",
                        "38.00",
                        60,
                        "One to one, from the first forehand to the second serve. The court and the"
                        " balls are in the price.",
                        rules={
                            "min_notice_minutes": 240,
                            "cancellation_notice_minutes": 1440,
                            "max_advance_days": 60,
                        },
                    ),
                ),
                demand=0.22,
                regulars=12,
                notes=("Backhand, please!", "Complete beginner."),
                comments=(
                    (5, "One hour with Paulo and the backhand stays in."),
                    (4, "Lots of running, lots of laughing."),
                    (5, "He films you, and then you understand."),
                    (3, "Good tips, but he took two phone calls meanwhile."),
                ),
            ),
        ),
    ),
    Business(
        "Vera Moniz",
        "vera@example.com",
        (
            Place(
                "Patas, dog grooming",
                (("Tue Wed Thu Fri", "09:30-13:00 14:30-18:30"), ("Sat", "09:30-13:30")),
                (
                    Offer(
                        "Bath and Brush",
                        "Pets",
                        "24.00",
                        60,
                        "Bath, blow-dry, brush and claws, for dogs of up to 25 kilos. Nervous ones"
                        " get the first hour of the day and more time.",
                        share=2,
                        rules={
                            "buffer_after_minutes": 15,
                            "step_minutes": 15,
                            "min_notice_minutes": 120,
                            "cancellation_notice_minutes": 720,
                        },
                    ),
                    Offer(
                        "Full Groom with Haircut",
                        "Pets",
                        "42.00",
                        90,
                        "Everything from ears to tail, with a haircut by breed or by wish. Please"
                        " tell me about allergies and sore spots.",
                        comments=((4, "Lovely job. A little shorter than we had agreed."),),
                        rules={
                            "buffer_after_minutes": 15,
                            "step_minutes": 15,
                            "min_notice_minutes": 120,
                            "cancellation_notice_minutes": 720,
                        },
                    ),
                ),
                demand=0.34,
                regulars=22,
                notes=(
                    "Pipoca is afraid of the dryer.",
                    "Rolled in something. Sorry in advance.",
                    "A cocker spaniel, eleven years old.",
                ),
                comments=(
                    (5, "Bolacha came out fluffy and in a good mood. She usually hates it."),
                    (5, "Vera has a way with frightened dogs."),
                    (5, "Finally somebody who gets the claws done without drama."),
                    (3, "Clean dog, but we waited twenty minutes at pick-up."),
                    (4, "Fair price, nice smell, happy dog."),
                ),
            ),
        ),
    ),
    Business(
        "Kofi Mensah",
        "kofi@example.com",
        (
            Place(
                "Kofi Mensah, trainer",
                (("Mon Tue Wed Thu Fri", "07:00-12:00 16:00-20:00"), ("Sat", "09:00-12:00")),
                (
                    Offer(
                        "Personal Training",
                        "Fitness",
                        "38.00",
                        60,
                        "Strength and stamina, in the park or at your home, with a plan that fits"
                        " your week. I bring the equipment, you bring water.",
                        comments=(
                            (5, "Ten kilos in six months, and I enjoyed most of it."),
                            (5, "Kofi notices when you cheat, and is nice about it."),
                        ),
                        rules={
                            "min_notice_minutes": 240,
                            "cancellation_notice_minutes": 720,
                            "max_advance_days": 60,
                        },
                    ),
                    Offer(
                        "Bootcamp on the Beach",
                        "Fitness",
                        "9.00",
                        60,
                        "Running, carrying, crawling and laughing, in a group of ten at most. In"
                        " any weather except lightning.",
                        sessions=(("Tue Thu", "07:00"), ("Sat", "09:00")),
                        comments=(
                            (4, "Great fun. Sand in places where sand should not be."),
                            (3, "A good workout, but the group was very mixed in level."),
                        ),
                        rules={
                            "mode": "slots",
                            "capacity": 10,
                            "requires_confirmation": False,
                            "cancellation_notice_minutes": 240,
                        },
                    ),
                ),
                demand=0.3,
                regulars=22,
                notes=("I have not done anything for two years.", "Training for ten kilometres."),
                comments=(
                    (5, "I could not walk downstairs the next day. Booked again."),
                    (4, "Good plan, clear goals. He is a little too awake at seven."),
                    (5, "Motivating without shouting."),
                ),
            ),
            Place(
                "Kofi Mensah, open water",
                (("Sat Sun", "08:00-11:00"),),
                (
                    # Out of season: what an inactive service looks like.
                    Offer(
                        "Sea Swimming for Beginners",
                        "Fitness",
                        "15.00",
                        90,
                        "First strokes in open water, along the buoys and never alone. From June to"
                        " September; out of season it cannot be booked.",
                        sessions=(("Sat Sun", "08:00"),),
                        rules={
                            "mode": "slots",
                            "capacity": 6,
                            "is_active": False,
                            "min_notice_minutes": 720,
                            "cancellation_notice_minutes": 720,
                        },
                    ),
                ),
                demand=0.0,
            ),
        ),
    ),
    Business(
        "Luísa Fontoura",
        "luisa@example.com",
        (
            Place(
                "Luísa Fontoura, psychotherapist",
                (("Mon Tue Thu", "08:30-12:30 15:30-19:30"), ("Wed", "13:30-18:00")),
                (
                    Offer(
                        "Psychotherapy Session",
                        "Therapy",
                        "60.00",
                        50,
                        "Fifty minutes, as always in the same quiet room. I publish my hours some"
                        " weeks ahead; take the one that suits you.",
                        sessions=(("Mon Tue Thu", "09:00 10:00 11:00"), ("Tue Thu", "17:00 18:00")),
                        rules={
                            "mode": "slots",
                            "requires_confirmation": False,
                            "buffer_after_minutes": 10,
                            "min_notice_minutes": 720,
                            "cancellation_notice_minutes": 2880,
                        },
                    ),
                    Offer(
                        "First Conversation",
                        "Therapy",
                        "35.00",
                        30,
                        "To get to know each other, and to find out whether I can help. What you"
                        " say stays in the room, also if you do not come again.",
                        sessions=(("Wed", "14:00 14:45 15:30"),),
                        rules={
                            "mode": "slots",
                            "buffer_after_minutes": 10,
                            "min_notice_minutes": 720,
                            "cancellation_notice_minutes": 1440,
                        },
                    ),
                ),
                demand=0.75,
                regulars=18,
                absences=(Absence(3, "Wed-Thu", "A congress in Porto"),),
                comments=(
                    (5, "I was afraid of the first hour, and am glad of every one since."),
                    (5, "She listens, and remembers."),
                    (4, "It helps. Finding a time after work takes some luck."),
                    (5, "No clock on the wall, and still always on time."),
                ),
            ),
        ),
    ),
    Business(
        "Artur Penedo",
        "artur@example.com",
        (
            Place(
                "Artur Penedo, tax adviser",
                (("Wed Fri", "13:30-18:30"),),
                (
                    Offer(
                        "Tax Advice",
                        "Advice",
                        "75.00",
                        60,
                        "Your return, your invoices or the letter that you do not understand. One"
                        " hour, one table, and a list of what to do next.",
                        sessions=(("Wed Fri", "14:00 15:15 16:30"),),
                        rules={
                            "mode": "slots",
                            "buffer_after_minutes": 15,
                            "min_notice_minutes": 1440,
                            "cancellation_notice_minutes": 1440,
                            "max_advance_days": 60,
                        },
                    ),
                ),
                demand=0.6,
                regulars=24,
                notes=("A letter from the tax office, three pages.", "I have just gone freelance."),
                comments=(
                    (5, "An hour with Artur, and the shoebox of receipts was a table."),
                    (4, "Clear answers. A form that he sent was for the year before."),
                    (5, "Got more back than it cost."),
                    (3, "Competent, but I would have liked it in writing."),
                ),
            ),
        ),
    ),
    Business(
        "Jaime Salvado",
        "jaime@example.com",
        (
            # Open past midnight: the night is one period.
            Place(
                "Cave 9, rehearsal room",
                (
                    ("Tue Wed Thu", "17:00-23:00"),
                    ("Fri", "17:00-24:00"),
                    ("Sat", "00:00-02:00 14:00-24:00"),
                    ("Sun", "00:00-02:00 14:00-20:00"),
                ),
                (
                    Offer(
                        "Rehearsal Room with Backline",
                        "Music",
                        "30.00",
                        120,
                        "Drums, two amplifiers and a microphone, in a cellar where nobody"
                        " hears you. On Fridays and Saturdays until two in the morning.",
                        rules={
                            "requires_confirmation": False,
                            "step_minutes": 60,
                            "min_notice_minutes": 60,
                            "cancellation_notice_minutes": 720,
                        },
                    ),
                ),
                demand=0.45,
                regulars=20,
                notes=("We bring our own cymbals.", "A concert on Saturday!"),
                comments=(
                    (5, "Thick walls, good drums, and a fridge."),
                    (4, "Sounds fine. The stairs and a bass amplifier are no friends."),
                    (5, "The only place in town where one can play at midnight."),
                    (3, "A cable was broken, and nobody was there to ask."),
                ),
            ),
        ),
    ),
    Business(
        "Graça Lobo",
        "graca@example.com",
        (
            Place(
                "Barro, Graça's pottery",
                (("Wed Thu", "18:00-21:30"), ("Sat", "09:30-18:00")),
                (
                    Offer(
                        "Pottery Workshop at the Wheel",
                        "Crafts",
                        "35.00",
                        150,
                        "Six wheels, six people and a bowl of your own at the end of it. Firing and"
                        " glaze are included; fetch it after two weeks.",
                        sessions=(("Wed Thu", "18:30"), ("Sat", "10:00 15:00")),
                        rules={
                            "mode": "slots",
                            "requires_confirmation": False,
                            "capacity": 6,
                            "min_notice_minutes": 720,
                            "cancellation_notice_minutes": 1440,
                            "max_advance_days": 90,
                        },
                    ),
                ),
                demand=0.5,
                regulars=26,
                notes=("A birthday present.", "Left-handed, does that matter?"),
                comments=(
                    (5, "My bowl leans to the left, and I love it."),
                    (5, "Two and a half hours without looking at a screen."),
                    (4, "Wonderful evening. Wear old clothes, really."),
                    (5, "Graça rescues every pot, with two fingers."),
                    (4, "Great fun. The blue glaze had run out, so mine will be green."),
                    (3, "Nice, though six people share one sink at the end."),
                ),
            ),
        ),
    ),
)

# --- Who comes --------------------------------------------------------------------------------

ADMIN = "Clara Fontes"
WOMEN = [
    "Ana Ferreira",
    "Catarina Lopes",
    "Elsa Magalhães",
    "Gabriela Sousa",
    "Isabel Pinto",
    "Laura Esteves",
    "Madalena Rocha",
    "Margarida Simões",
    "Mónica Guerreiro",
    "Olga Kravchenko",
    "Patrícia Leal",
    "Raquel Figueiredo",
    "Rita Salgueiro",
    "Sara Domingues",
    "Sílvia Caldeira",
    "Susana Neves",
    "Vitória Pires",
    "Zulmira Coelho",
    "Bárbara Cunha",
    "Cristina Reis",
    "Eduarda Campos",
    "Francisca Amorim",
    "Joana Bettencourt",
    "Leonor Vaz",
    "Mariana Torres",
    "Paula Medeiros",
    "Emma Whitfield",
    "Chiara Rinaldi",
    "Camille Durand",
    "Larissa Prado",
    "Maeve Gallagher",
]
MEN = [
    "Bruno Teixeira",
    "Daniel Pacheco",
    "Filipe Nunes",
    "Hugo Antunes",
    "Joaquim Ribeiro",
    "Luís Cardoso",
    "Manuel Vieira",
    "Miguel Tavares",
    "Nelson Batista",
    "Pedro Azevedo",
    "Ricardo Brito",
    "Rodrigo Falcão",
    "Sérgio Louro",
    "Telmo Garcia",
    "Tiago Marques",
    "Vasco Henriques",
    "André Moreira",
    "Carlos Mendonça",
    "Duarte Sequeira",
    "Fernando Barros",
    "Gonçalo Freitas",
    "Henrique Duarte",
    "Jorge Alves",
    "Nuno Correia",
    "Lukas Brandt",
    "Thabo Nkosi",
    "Arjun Nair",
    "Wei Chen",
    "Samuel Tchipenda",
]
CHILDREN = [
    "Tomás",
    "Matilde",
    "Afonso",
    "Alice",
    "Martim",
    "Benedita",
    "Lourenço",
    "Clara",
    "Salvador",
    "Íris",
    "Simão",
    "Júlia",
]

# Where the first of all, whose password is known, is a regular.
PLACES_OF_THE_FIRST = [
    "Maré Yoga, Sea Hall",
    "Beatriz Nogueira, physiotherapist",
    "Inês Carvalho, mathematics",
    "Clube de Ténis, Court 1",
    "Patas, dog grooming",
    "Barro, Graça's pottery",
]

REASONS = (
    "I am ill, I am sorry. Please pick another day.",
    "A power cut in the whole street.",
    "My car broke down on the bridge.",
)

# --- How it comes to life ---------------------------------------------------------------------


class NotEmptyError(Exception):
    """The database is in use: demo data goes into an empty one alone."""


@dataclass
class Guest:
    """A customer, and where they are when."""

    user: User
    man: bool
    child: str
    weight: float
    #: The days on which they come where they are a regular, and what they are busy with.
    visits: dict[str, list[date]] = field(default_factory=dict)
    periods: list[tuple[datetime, datetime]] = field(default_factory=list)

    def can_come(self, place: Place, start: datetime, end: datetime, *, apart: int) -> bool:
        """Return whether they want to come again by then, and are nowhere else."""
        visits = self.visits.get(place.name)
        if visits is None:
            return False
        walk = timedelta(minutes=20)
        return all(abs((start.date() - day).days) >= apart for day in visits) and all(
            end + walk <= begins or ends + walk <= start for begins, ends in self.periods
        )


@dataclass(frozen=True)
class Step:
    """Something that happens to a booking, and the state that comes of it."""

    type: BookingEvent.Type
    status: str
    at: datetime
    actor_id: UUID | None
    reason: str = ""


@dataclass
class Draft:
    """A booking that is being made up, with all that happens to it."""

    booking: Booking
    guest: Guest
    place: Place
    offer: Offer
    steps: list[Step]
    moved_from: datetime | None = None

    @property
    def gives_back(self) -> bool:
        """Whether its seat is free again."""
        return self.booking.status not in Booking.ACTIVE

    def events(self) -> Iterator[BookingEvent]:
        """Yield its history, as `bookings.services` would have written it."""
        booking = self.booking
        length = booking.end_time - booking.start_time
        start, status = self.moved_from or booking.start_time, ""
        for step in self.steps:
            more: dict[str, Any] = {"reason": step.reason} if step.reason else {}
            if step.type == BookingEvent.Type.RESCHEDULED:
                more["was"] = {**_period(start, start + length), "slot_id": None}
                start = booking.start_time
            elif status:
                more["was"] = {"status": status}
            status = step.status
            held_until = booking.hold_expires_at if status == Status.HELD else None
            yield BookingEvent(
                booking_id=booking.pk,
                type=step.type,
                actor_id=step.actor_id,
                at=step.at,
                data={
                    "status": status,
                    **_period(start, start + length),
                    "seat": booking.seat,
                    "slot_id": str(booking.slot_id) if booking.slot_id else None,
                    "hold_expires_at": held_until.isoformat() if held_until else None,
                    **more,
                },
            )


def fill_with_demo(*, at: datetime, say: Callable[[str], None]) -> None:
    """Store the town, with its bookings around `at`; all of it or nothing.

    Args:
        at: now. The same moment gives the same data.
        say: gets a line about each stage.

    Raises:
        NotEmptyError: there is something in the database already.
    """
    with transaction.atomic():
        _check_empty()
        # Nobody is told of what they did in this past.
        follow_nothing_up()
        town = _Town(at)
        customers, providers = town.people()
        say(f"People: 1 admin, {providers} providers, {customers} customers.")
        calendars, services = town.catalog()
        say(f"Catalog: {calendars} calendars, {services} services.")
        slots, absences = town.timetable()
        say(f"Timetable: {slots} slots, {absences} times off.")
        states, events = town.bookings()
        counts = ", ".join(f"{count} {status}" for status, count in states.most_common())
        say(f"Bookings: {states.total()} ({counts}), with {events} events.")
        reviews, comments = town.reviews()
        say(f"Reviews: {reviews}, {comments} with a comment.")


class _Town:
    """Dreams up the town and stores it, stage by stage."""

    def __init__(self, at: datetime) -> None:
        self.at = at
        self.random = Random(SEED)  # noqa: S311 - a town is no secret
        self.guests: list[Guest] = []
        self.providers: dict[str, User] = {}
        self.services: list[tuple[Place, dict[Offer, Service]]] = []
        #: The scheduled slots of each service that has some, by their starts.
        self.slots: dict[UUID, dict[datetime, Slot]] = {}
        #: How many seats some of them are to have left.
        self.seats_left: dict[UUID, int] = {}
        self.terms: dict[UUID, Terms] = {}
        self.drafts: list[Draft] = []

    # Stages

    def people(self) -> tuple[int, int]:
        """Store everybody; return how many customers and providers there are."""
        passwords = {role: password for role, _, password in ACCOUNTS}
        # Once for each, not for each user: a hash takes its time.
        hashes = {role: make_password(password) for role, password in passwords.items()}

        def user(name: str, email: str, role: str, *, days_ago: int) -> User:
            joined = self.about(self.at - timedelta(days=days_ago))
            return User(
                id=self.id(joined),
                name=name,
                email=email,
                role=role,
                password=hashes[role],
                timezone=ZONE.key,
                created_at=joined,
            )

        admin = user(ADMIN, ACCOUNTS[0][1], User.Role.ADMIN, days_ago=420)
        for business in BUSINESSES:
            self.providers[business.email] = user(
                business.owner,
                business.email,
                User.Role.PROVIDER,
                days_ago=self.random.randint(300, 400),
            )
        for name in WOMEN + MEN:
            days_ago = self.random.randint(60, 290)
            customer = user(name, _address(name), User.Role.USER, days_ago=days_ago)
            guest = Guest(
                user=customer,
                man=name in MEN,
                child=f"{self.random.choice(CHILDREN)} {name.split()[-1]}",
                weight=self.random.uniform(0.5, 1.5),
            )
            self.guests.append(guest)
        first = self.guests[0]
        first.user.email, first.weight = ACCOUNTS[1][1], 3
        for place in (place for business in BUSINESSES for place in business.places):
            others = [guest for guest in self.guests[1:] if guest.man or not place.men_only]
            regulars = self.random.sample(others, place.regulars)
            if place.name in PLACES_OF_THE_FIRST:
                regulars.append(first)
            apart = DAYS_BETWEEN_VISITS[place.offers[0].category]
            for guest in regulars:
                # They came before all that is shown, each on another day.
                days_ago = DAYS_BEHIND + self.random.randint(1, apart)
                guest.visits[place.name] = [self.at.date() - timedelta(days=days_ago)]
        User.objects.bulk_create(
            [admin, *self.providers.values(), *(guest.user for guest in self.guests)]
        )
        return len(self.guests), len(self.providers)

    def catalog(self) -> tuple[int, int]:
        """Store what is offered; return how many calendars and services there are."""
        for business in BUSINESSES:
            provider = self.providers[business.email]
            opened = provider.created_at + timedelta(hours=1)
            for place in business.places:
                calendar = create_calendar(
                    actor=provider,
                    at=opened,
                    id=self.id(opened),
                    name=place.name,
                    timezone=ZONE.key,
                    opening_hours=[
                        {"weekday": weekday, "opens": opens, "closes": closes}
                        for weekday, opens, closes in _spans(place.hours)
                    ],
                )
                services: dict[Offer, Service] = {}
                for offer in place.offers:
                    opened += timedelta(minutes=self.random.randint(4, 15))
                    services[offer] = create_service(
                        actor=provider,
                        at=opened,
                        calendar_id=calendar.pk,
                        id=self.id(opened),
                        title=offer.title,
                        description=offer.description,
                        category=offer.category,
                        price=Decimal(offer.price),
                        currency=CURRENCY,
                        duration_minutes=offer.minutes,
                        **offer.rules,
                    )
                self.services.append((place, services))
        return len(self.services), sum(len(services) for _, services in self.services)

    def timetable(self) -> tuple[int, int]:
        """Publish slots and close for holidays; return how many slots and times off there are."""
        slots = absences = 0
        owners: dict[UUID | None, User] = {user.pk: user for user in self.providers.values()}
        published = self.about(self.at - timedelta(days=DAYS_SINCE_PUBLISHED))
        for place, services in self.services:
            calendar = next(iter(services.values())).calendar
            provider = owners[calendar.provider_id]
            closed = list(self.closed(place))
            absences += len(closed)
            for start, end, reason in closed:
                create_time_off(
                    calendar_id=calendar.pk,
                    actor=provider,
                    at=published,
                    start_time=start,
                    end_time=end,
                    reason=reason,
                )
            for offer, service in services.items():
                made = self.publish(offer, service, provider, at=published)
                slots += len(made)
                for slot in made:
                    if any(
                        slot.start_time < end and start < slot.end_time for start, end, _ in closed
                    ):
                        status = Slot.Status.CANCELLED
                        change_slot(slot_id=slot.pk, actor=provider, at=published, status=status)
                    else:
                        self.slots.setdefault(service.pk, {})[slot.start_time] = slot
                if offer.sought_after:
                    full, scarce = [
                        slot
                        for slot in self.slots[service.pk].values()
                        if slot.start_time > self.at + DAY
                    ][:2]
                    self.seats_left = {full.pk: 0, scarce.pk: 2}
        return slots, absences

    def bookings(self) -> tuple[Counter[str], int]:
        """Store bookings and their history; return the number in each state, and of events."""
        today = self.today
        everything = [service.pk for _, services in self.services for service in services.values()]
        self.terms = terms_of(everything, day_start(today - timedelta(days=DAYS_BEHIND), ZONE))
        # Planned place by place, each with the starts that stay free.
        for place, services in self.services:
            free: dict[Offer, list[datetime]] = {offer: [] for offer in place.offers}
            drafts: list[Draft] = []
            for days in range(-DAYS_BEHIND, DAYS_AHEAD + 1):
                # The further ahead, the emptier.
                demand = place.demand * (1 - max(days, 0) / (DAYS_AHEAD + 4))
                day = today + timedelta(days=days)
                drafts += self.day(place, services, day, demand, free)
            for draft in drafts:
                if draft.booking.service.capacity == 1 and self.random.random() < 0.1:
                    self.move(draft, free[draft.offer])
            self.drafts += drafts
            self.request(place, services, free)
        for draft in self.drafts:
            draft.booking.updated_at = draft.steps[-1].at
        self.drafts.sort(key=lambda draft: (draft.booking.created_at, draft.booking.pk))
        Booking.objects.bulk_create([draft.booking for draft in self.drafts])
        # In the order in which it all happened; the sort keeps that of each booking.
        events = sorted(
            (one for each in self.drafts for one in each.events()), key=attrgetter("at")
        )
        BookingEvent.objects.bulk_create(events)
        return Counter(str(draft.booking.status) for draft in self.drafts), len(events)

    def reviews(self) -> tuple[int, int]:
        """Store reviews and count them; return how many there are, and how many with a comment."""
        reviews: list[Review] = []
        subjects: list[Place | Offer] = []
        for place, offers in self.services:
            subjects += [place, *offers]
        left = {
            subject: self.random.sample(subject.comments, len(subject.comments))
            for subject in subjects
        }
        heard: set[tuple[Place, UUID]] = set()
        for draft in self.drafts:
            booking, place, user = draft.booking, draft.place, draft.guest.user
            written = self.about(booking.end_time + self.random.random() * timedelta(days=4))
            said = (place, user.pk)
            if (
                booking.status != Status.COMPLETED
                or not booking.end_time < written < self.at
                or said in heard
                or self.random.random() < 0.4
            ):
                continue
            heard.add(said)
            comments = left[draft.offer] or left[place]
            if comments and self.random.random() < 0.75:
                rating, comment = comments.pop()
            else:
                rating, comment = self.random.choices([5, 4, 3, 2], [60, 28, 9, 3])[0], ""
            reviews.append(
                Review(
                    id=self.id(written),
                    booking=booking,
                    service=booking.service,
                    user=user,
                    rating=rating,
                    comment=comment,
                    created_at=written,
                    updated_at=written,
                )
            )
        Review.objects.bulk_create(reviews)
        services = [service for _, services in self.services for service in services.values()]
        for service in services:
            ratings = [review.rating for review in reviews if review.service == service]
            service.rating_sum, service.rating_count = sum(ratings), len(ratings)
        Service.objects.bulk_update(services, ["rating_sum", "rating_count"])
        return len(reviews), sum(bool(review.comment) for review in reviews)

    # One day of one place

    def day(
        self,
        place: Place,
        services: dict[Offer, Service],
        day: date,
        demand: float,
        free: dict[Offer, list[datetime]],
    ) -> Iterator[Draft]:
        """Yield the bookings of a day; starts that stay free are noted in `free`."""
        taken: list[tuple[datetime, datetime]] = []
        for offer in place.offers:
            service = services[offer]
            for start in self.sessions(offer, service, day):
                taken.append(self.blocked(service, start))
                made = self.session(place, offer, service, start, demand)
                yield from made
                if not made and service.capacity == 1:
                    free[offer].append(start)
        solo = [offer for offer in place.offers if not offer.sessions]
        shares = [offer.share for offer in solo]
        opening = self.terms[services[place.offers[0]].pk].opening
        for opens, closes in opening.periods(day_start(day, ZONE), day_end(day, ZONE)):
            if opens.astimezone(ZONE).date() != day or not solo:
                continue
            moment = opens
            while True:
                offer = self.random.choices(solo, shares)[0]
                service = services[offer]
                terms = self.terms[service.pk]
                # The first start of the grid that leaves room for the buffer before it.
                begins = moment + terms.buffer_before
                start = opens + -((opens - begins) // terms.step) * terms.step
                if start + terms.duration > closes:
                    break
                lower, moment = self.blocked(service, start)
                if opening.is_off(start, start + terms.duration) or any(
                    lower < ends and starts < moment for starts, ends in taken
                ):
                    continue
                if self.random.random() < demand:
                    yield from self.single(place, offer, service, start)
                else:
                    free[offer].append(start)

    def request(
        self, place: Place, services: dict[Offer, Service], free: dict[Offer, list[datetime]]
    ) -> None:
        """Add a fresh booking of each service, so that every provider finds something to answer."""
        first = self.guests[0]
        for offer, starts in free.items():
            service = services[offer]
            if not service.requires_confirmation:
                continue
            ahead = [start for start in starts if start > self.at + timedelta(days=2)]
            asks = any(
                draft.guest is first and draft.booking.status == Status.PENDING
                for draft in self.drafts
            )
            # The one whose password is known asks for something too.
            for guests in [self.guests] if asks else [[first], self.guests]:
                drafts = (
                    self.draft(
                        place, offer, service, start, guests, earliest=self.at - UNANSWERED, apart=1
                    )
                    for start in ahead
                )
                draft = next((draft for draft in drafts if draft is not None), None)
                if draft is not None:
                    starts.remove(draft.booking.start_time)
                    self.drafts.append(draft)
                    break

    def session(
        self, place: Place, offer: Offer, service: Service, start: datetime, demand: float
    ) -> list[Draft]:
        """Return the bookings of a session, each in the lowest seat that was free at the time."""
        wanted = round(service.capacity * min(1.0, demand * self.random.uniform(0.5, 1.8)))
        made: list[Draft] = []
        slot = self.slots.get(service.pk, {}).get(start)
        left = self.seats_left.get(slot.pk) if slot else None
        if left is None:
            for _ in range(wanted):
                made += self.single(place, offer, service, start)
        else:
            # In the one that is not quite full somebody is about to pay.
            holds = [False] * (service.capacity - left - bool(left)) + [True] * bool(left)
            drafts = [
                self.draft(
                    place, offer, service, start, self.guests, apart=1, held=held, certain=True
                )
                for held in holds
            ]
            made += [draft for draft in drafts if draft is not None]
        made.sort(key=lambda draft: draft.booking.created_at)
        for number, draft in enumerate(made):
            held = {
                other.booking.seat
                for other in made[:number]
                if not other.gives_back or other.steps[-1].at > draft.booking.created_at
            }
            draft.booking.seat = next(
                seat for seat in range(1, service.capacity + 1) if seat not in held
            )
        return made

    def single(
        self, place: Place, offer: Offer, service: Service, start: datetime
    ) -> Iterator[Draft]:
        """Yield the booking of one seat; when it is given back, it may go to somebody else."""
        earliest = None
        while True:
            draft = self.draft(place, offer, service, start, self.guests, earliest=earliest)
            if draft is None:
                return
            yield draft
            if not draft.gives_back or self.random.random() < 0.4:
                return
            earliest = draft.steps[-1].at

    # One booking

    def draft(
        self,
        place: Place,
        offer: Offer,
        service: Service,
        start: datetime,
        guests: list[Guest],
        *,
        earliest: datetime | None = None,
        apart: int | None = None,
        certain: bool = False,
        held: bool = False,
    ) -> Draft | None:
        """Make up a booking of one of `guests`, in seat 1; None when none of them can come.

        Args:
            earliest: it is made after this.
            apart: days between it and the guest's other visits; by default the usual number.
            certain: nobody cancels it.
            held: its seat has just been taken, and is to be booked in some minutes.
        """
        apart = apart or DAYS_BETWEEN_VISITS[offer.category]
        if held:
            earliest = self.at - settings.HOLD_TIME / 4
        end = start + timedelta(minutes=service.duration_minutes)
        notice = timedelta(minutes=max(service.min_notice_minutes, 30))
        made = self.before(min(self.at, start - notice), days=4)
        if made < start - timedelta(days=service.max_advance_days or 366):
            return None
        if earliest is not None and made <= earliest:
            made = self.between(earliest, min(self.at, start - notice))
            if made <= earliest:
                return None
        candidates = [
            guest
            for guest in guests
            if guest.user.created_at < made and guest.can_come(place, start, end, apart=apart)
        ]
        if not candidates:
            return None
        guest = self.random.choices(candidates, [guest.weight for guest in candidates])[0]
        note = place.notes and self.random.random() < (0.12 if service.capacity == 1 else 0.03)
        booking = Booking(
            id=self.id(made),
            user=guest.user,
            service=service,
            calendar_id=service.calendar_id,
            slot=self.slots.get(service.pk, {}).get(start),
            seat=1,
            start_time=start,
            end_time=end,
            blocked=DateTimeTZRange(*self.blocked(service, start)),
            attendee_name=guest.child if offer.for_children else "",
            notes=self.random.choice(place.notes) if note else "",
            price=service.price,
            currency=service.currency,
            hold_expires_at=made + settings.HOLD_TIME if held else None,
            created_at=made,
        )
        steps = [Step(BookingEvent.Type.HELD, Status.HELD, made, guest.user.pk)]
        if not held:
            steps = self.steps(booking, certain=certain)
        draft = Draft(booking, guest, place, offer, steps)
        booking.status = draft.steps[-1].status
        guest.visits[place.name].append(start.date())
        if not draft.gives_back:
            guest.periods.append((start, end))
        return draft

    def steps(self, booking: Booking, *, certain: bool = False) -> list[Step]:
        """Make up what happens to a booking between the moment it is made and now."""
        service, start, end = booking.service, booking.start_time, booking.end_time
        owner, provider = booking.user_id, service.calendar.provider_id
        pending = service.requires_confirmation
        steps: list[Step] = []

        def then(status: str, at: datetime, actor_id: UUID | None, reason: str = "") -> None:
            kind = EVENT_OF[Status(status)] if steps else BookingEvent.Type.CREATED
            steps.append(Step(kind, status, at, actor_id, reason))

        then(Status.PENDING if pending else Status.CONFIRMED, booking.created_at, owner)
        # The clock has its minute, see section 5 of the contract.
        delay = timedelta(seconds=self.random.randint(1, 59))
        over = end + delay <= self.at
        fate = 1.0 if certain else self.random.random()
        if pending:
            if fate < 0.07 and over:
                then(Status.EXPIRED, start + delay, None)
                return steps
            if booking.created_at > self.at - UNANSWERED and start > self.at:
                return steps
            confirmed = self.after(booking.created_at, hours=10)
            if confirmed >= start:
                confirmed = self.between(booking.created_at, start)
            if confirmed >= self.at:
                return steps
            then(Status.CONFIRMED, confirmed, provider)
        if 0.07 <= fate < 0.15:
            notice = timedelta(minutes=max(service.cancellation_notice_minutes, 30))
            latest = min(self.at, start - notice)
            if latest > steps[-1].at:
                ill = service.capacity == 1 and self.random.random() < 0.2
                then(
                    Status.CANCELLED,
                    self.between(steps[-1].at, latest),
                    provider if ill else owner,
                    self.random.choice(REASONS) if ill else "",
                )
                return steps
        if over and 0.15 <= fate < 0.18:
            then(Status.NO_SHOW, start + timedelta(minutes=10) + delay, provider)
        elif over:
            then(Status.COMPLETED, end + delay, None)
        return steps

    def move(self, draft: Draft, starts: list[datetime]) -> None:
        """Let a booking have been at another time first, at one near it of those that are free."""
        booking, steps = draft.booking, draft.steps
        over = steps[-1].status not in (Status.PENDING, Status.CONFIRMED)
        number = len(steps) - 1 if over else len(steps)
        before, ended = steps[number - 1], steps[-1].at if over else self.at
        notice = timedelta(minutes=max(booking.service.cancellation_notice_minutes, 30))
        for start in starts:
            latest = min(ended, booking.start_time - notice, start - notice)
            near = abs(start - booking.start_time) < timedelta(days=6)
            if near and before.at + timedelta(hours=1) < latest:
                starts.remove(start)
                draft.moved_from = start
                moved = self.between(before.at, latest)
                kind = BookingEvent.Type.RESCHEDULED
                steps.insert(number, Step(kind, before.status, moved, booking.user_id))
                return

    # Time

    @property
    def today(self) -> date:
        """The day by the town's clocks."""
        return self.at.astimezone(ZONE).date()

    def closed(self, place: Place) -> Iterator[tuple[datetime, datetime, str]]:
        """Yield when a place has time off, and why."""
        for days in range(-DAYS_BEHIND, DAYS_PUBLISHED + 1):
            day = self.today + timedelta(days=days)
            if (day.month, day.day) in HOLIDAYS:
                yield day_start(day, ZONE), day_end(day, ZONE), "Public holiday"
        monday = self.today - timedelta(days=self.today.weekday())
        for absence in place.absences:
            first, last = (
                monday + timedelta(days=7 * absence.week + WEEKDAYS.index(day))
                for day in absence.days.split("-")
            )
            opens, closes = map(_minute, absence.hours.split("-"))
            yield (
                wall_clock(first, opens, ZONE),
                wall_clock(last, closes, ZONE),
                absence.reason,
            )

    def publish(
        self, offer: Offer, service: Service, provider: User, *, at: datetime
    ) -> list[Slot]:
        """Publish the slots of a service, and return them in order."""
        slots: list[Slot] = []
        if service.mode != Service.Mode.SLOTS or not service.is_active:
            return slots
        begin = self.today - timedelta(days=DAYS_BEHIND)
        until = self.today + timedelta(days=DAYS_PUBLISHED)
        for days, times in offer.sessions:
            weekdays = ",".join(day[:2].upper() for day in days.split())
            rule = parse_rule(f"FREQ=WEEKLY;BYDAY={weekdays};UNTIL={until:%Y%m%d}")
            first = next(
                day
                for day in (begin + timedelta(days=number) for number in range(7))
                if WEEKDAYS[day.weekday()] in days
            )
            for start in times.split():
                slots += publish_slots(
                    actor=provider,
                    service_id=service.pk,
                    start_time=wall_clock(first, _minute(start), ZONE),
                    rrule=rule,
                    at=at,
                )
        return sorted(slots, key=attrgetter("start_time"))

    def sessions(self, offer: Offer, service: Service, day: date) -> Iterator[datetime]:
        """Yield when the sessions of a service start on a day."""
        if service.mode == Service.Mode.SLOTS:
            for start in self.slots.get(service.pk, ()):
                if start.astimezone(ZONE).date() == day:
                    yield start
            return
        terms = self.terms[service.pk]
        for weekday, minute in _starts(offer.sessions):
            start = wall_clock(day, minute, ZONE)
            if weekday == day.weekday() and terms.opening.contains(start, start + terms.duration):
                yield start

    def blocked(self, service: Service, start: datetime) -> tuple[datetime, datetime]:
        """Return the time that a booking takes, buffers included."""
        terms = self.terms[service.pk]
        return start - terms.buffer_before, start + terms.duration + terms.buffer_after

    # Chance

    def id(self, at: datetime) -> UUID:
        """Return a UUID of version 7 (RFC 9562, section 5.7) for something made at `at`."""
        milliseconds = int(at.timestamp() * 1000)
        fixed = milliseconds << 80 | 0x7 << 76 | 0b10 << 62
        return UUID(int=fixed | self.random.getrandbits(12) << 64 | self.random.getrandbits(62))

    def about(self, at: datetime) -> datetime:
        """Return a moment of that day at which people are awake."""
        minute = self.random.randint(8 * 60, 22 * 60)
        day = wall_clock(at.astimezone(ZONE).date(), minute, ZONE)
        return day + timedelta(seconds=self.random.randint(0, 59))

    def before(self, latest: datetime, *, days: float) -> datetime:
        """Return a waking moment before `latest`, on average about so many days."""
        at = latest - timedelta(days=min(self.random.expovariate(1 / days), 5 * days), seconds=20)
        if at.astimezone(ZONE).hour < 7:
            at -= timedelta(hours=8)
        return at.replace(microsecond=0)

    def after(self, earliest: datetime, *, hours: float) -> datetime:
        """Return a waking moment after `earliest`, on average about so many hours."""
        at = earliest + timedelta(hours=self.random.expovariate(1 / hours), seconds=40)
        hour = at.astimezone(ZONE).hour
        if hour < 8:
            at += timedelta(hours=8 - hour)
        return at.replace(microsecond=0)

    def between(self, earliest: datetime, latest: datetime) -> datetime:
        """Return a moment between the two, a waking one where there are some."""
        for _ in range(10):
            at = earliest + self.random.uniform(0.05, 0.95) * (latest - earliest)
            if at.astimezone(ZONE).hour >= 7:
                break
        return at.replace(microsecond=0)


def _check_empty() -> None:
    """Hold everybody else off, and see that the database is as good as new."""
    with connection.cursor() as cursor:
        # Of two who start at once, the second waits here and then finds the first one's services.
        cursor.execute("LOCK TABLE catalog_service IN SHARE ROW EXCLUSIVE MODE")
    if Service.objects.exists():
        raise NotEmptyError("There are services already.")
    addresses = [email for _, email, _ in ACCOUNTS] + [business.email for business in BUSINESSES]
    addresses += [_address(name) for name in WOMEN + MEN]
    taken = User.objects.filter(email__in=addresses).order_by("email").first()
    if taken is not None:
        raise NotEmptyError(f"{taken.email} has an account already.")


def _address(name: str) -> str:
    plain = normalize("NFKD", name).encode("ascii", "ignore").decode()
    return f"{plain.lower().replace(' ', '.')}@example.com"


def _minute(text: str) -> int:
    hours, minutes = text.split(":")
    return 60 * int(hours) + int(minutes)


def _starts(table: tuple[tuple[str, str], ...]) -> Iterator[tuple[int, int]]:
    """Yield each weekday and minute of a table such as `("Mon Wed", "07:30 18:30")`."""
    for days, times in table:
        for day in days.split():
            for start in times.split():
                yield WEEKDAYS.index(day), _minute(start)


def _spans(table: tuple[tuple[str, str], ...]) -> Iterator[tuple[int, int, int]]:
    """Yield weekday, opening and closing minute of a table such as `("Mon", "09:00-13:00")`."""
    for days, spans in table:
        for day in days.split():
            for span in spans.split():
                opens, closes = map(_minute, span.split("-"))
                yield WEEKDAYS.index(day), opens, closes


def _period(start: datetime, end: datetime) -> dict[str, str]:
    return {"start_time": start.isoformat(), "end_time": end.isoformat()}
