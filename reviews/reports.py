"""The report on reviews. `docs/reports.md` defines its numbers."""

from typing import Any

from django.utils.text import format_lazy
from django.utils.translation import gettext as translated
from django.utils.translation import gettext_lazy as _
from psycopg.rows import dict_row

from bookings.reports.charts import Chart, by_month, month, number
from bookings.reports.columns import Column, average
from bookings.reports.figures import Figures
from bookings.reports.kinds import REPORTS, Report
from bookings.reports.pages import add_to_menu
from bookings.reports.periods import Period
from bookit.database.rows import fetch
from catalog.models import average_rating

# Counts reviews by month and rating.
#
# Parameters: start timestamptz, end timestamptz, months timestamptz[] (where each month begins).
# Columns: month integer (from 1), rating smallint, reviews bigint.
_RATINGS = """
SELECT width_bucket(created_at, %(months)s::timestamptz[]) AS month, rating, count(*) AS reviews
FROM reviews_review WHERE created_at >= %(start)s AND created_at < %(end)s GROUP BY 1, 2
"""
STARS = {f"rating_{stars}": stars for stars in range(1, 6)}


def ratings(period: Period) -> Figures:
    """Return how many reviews gave each rating, and the average rating, by month and in total."""
    # Month 0 is the whole period.
    counts = {(n, stars): 0 for n in range(len(period.months) + 1) for stars in STARS.values()}
    for row in fetch(_RATINGS, period.parameters, dict_row):
        counts[row["month"], row["rating"]] = row["reviews"]
        counts[0, row["rating"]] += row["reviews"]

    def of_month(n: int) -> dict[str, Any]:
        by_name = {name: counts[n, stars] for name, stars in STARS.items()}
        reviews = sum(by_name.values())
        total = sum(stars * by_name[name] for name, stars in STARS.items())
        mean = float(average_rating(total, reviews)) if reviews else None
        return {"reviews": reviews, "rating_average": mean, **by_name}

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
        figures=ratings,
        draw=draw,
        columns={
            "month": Column(_("Month"), month),
            "reviews": Column(_("Reviews"), number),
            "rating_average": Column(_("Average rating"), average),
            **{
                name: Column(format_lazy(_("{stars} of 5"), stars=stars), number)
                for name, stars in STARS.items()
            },
        },
        permission="reviews.view_review",
    )
)
add_to_menu("reviews")
