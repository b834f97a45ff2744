"""The report on reviews. `docs/reports.md` defines its numbers."""

from typing import Any

from django.utils.text import format_lazy
from django.utils.translation import gettext as translated
from django.utils.translation import gettext_lazy as _
from psycopg.rows import dict_row
from rest_framework import serializers

from bookings.reports.charts import Chart, by_month
from bookings.reports.figures import Figures
from bookings.reports.kinds import REPORTS, Report
from bookings.reports.pages import add_to_menu
from bookings.reports.periods import Period
from bookings.reports.serializers import CountField, InMonthSerializer, ReportSerializer
from bookit.api.serializers import StrictSerializer
from bookit.database.rows import fetch

# Counts reviews by month and rating.
#
# Parameters: start timestamptz, end timestamptz, months timestamptz[] (where each month begins).
# Columns: month integer (from 1), rating smallint, reviews bigint.
_RATINGS = """
SELECT width_bucket(created_at, %(months)s::timestamptz[]) AS month, rating, count(*) AS reviews
FROM reviews_review WHERE created_at >= %(start)s AND created_at < %(end)s GROUP BY 1, 2
"""
STARS = {f"rating_{stars}": stars for stars in range(1, 6)}


class ReviewTotalsSerializer(StrictSerializer):
    """How many reviews were written, and their ratings."""

    reviews = CountField()
    rating_average = serializers.FloatField(allow_null=True, min_value=1, max_value=5)
    rating_1 = CountField()
    rating_2 = CountField()
    rating_3 = CountField()
    rating_4 = CountField()
    rating_5 = CountField()


class MonthReviewsSerializer(InMonthSerializer, ReviewTotalsSerializer):
    """How many reviews were written in a month, and their ratings."""


class ReviewReportSerializer(ReportSerializer):
    """How many reviews were written in each month, and their ratings."""

    results = MonthReviewsSerializer(many=True, read_only=True)
    totals = ReviewTotalsSerializer(read_only=True)


def ratings(period: Period) -> Figures:
    """Return how many reviews gave each rating, and the average rating, by month and in total."""
    # Month 0 is the whole period.
    counts = {(n, stars): 0 for n in range(len(period.months) + 1) for stars in STARS.values()}
    for row in fetch(_RATINGS, period.parameters, dict_row):
        counts[row["month"], row["rating"]] = row["reviews"]
        counts[0, row["rating"]] += row["reviews"]

    def of_month(month: int) -> dict[str, Any]:
        by_name = {name: counts[month, stars] for name, stars in STARS.items()}
        reviews = sum(by_name.values())
        total = sum(stars * by_name[name] for name, stars in STARS.items())
        average = round(total / reviews, 2) if reviews else None
        return {"reviews": reviews, "rating_average": average, **by_name}

    rows = [{"month": name, **of_month(n)} for n, (name, _begins) in enumerate(period.months, 1)]
    return Figures(rows, of_month(0))


def draw(period: Period, found: Figures) -> list[Chart]:
    """Return the charts of the average rating, and of the number of reviews, by month."""
    averages = [(row["month"], row["rating_average"] or 0.0) for row in found.rows]
    numbers = [(row["month"], row["reviews"]) for row in found.rows]
    return [
        by_month(
            translated("Average rating by month"),
            translated("Average rating"),
            averages,
        ),
        by_month(translated("Reviews by month"), translated("Reviews"), numbers),
    ]


REPORTS.add("reviews")(
    Report(
        _("Reviews"),
        _("How many reviews were written each month, and how good they are."),
        ratings,
        draw,
        ReviewReportSerializer,
        {
            "month": _("Month"),
            "reviews": _("Reviews"),
            "rating_average": _("Average rating"),
            **{name: format_lazy(_("{stars} of 5"), stars=stars) for name, stars in STARS.items()},
        },
        permission="reviews.view_review",
    )
)
add_to_menu("reviews")
