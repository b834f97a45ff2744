"""The card about failed jobs on the home page of the admin site."""

from collections import Counter
from typing import Any

from procrastinate.contrib.django.models import ProcrastinateJob

from bookit.adminsite.extensions import HOME_CARDS, Glance, HomeCard
from bookit.adminsite.links import list_of
from bookit.jobs.extensions import TASK_WORDS

# The card counts at most this many failed jobs, and lists at most this many tasks.
MAX_JOBS = 100
MAX_TASKS = 5


def read_jobs(glance: Glance) -> dict[str, Any]:
    """Return how many jobs have failed, by task. Only the newest `MAX_JOBS` are counted."""
    failed = ProcrastinateJob.objects.filter(status="failed").order_by("-id")
    names = [*failed.values_list("task_name", flat=True)[: MAX_JOBS + 1]]
    tasks = Counter(names[:MAX_JOBS]).most_common()
    is_cut = len(names) > MAX_JOBS
    return {
        "count": f"{MAX_JOBS}+" if is_cut else len(names),
        "url": list_of(ProcrastinateJob, status__exact="failed"),
        "lines": [
            {
                "title": TASK_WORDS.get(name, name),
                # Leave out counts that may be too low: the linked list shows all jobs of the task.
                "count": "" if is_cut else count,
                "url": list_of(ProcrastinateJob, status__exact="failed", task_name=name),
            }
            for name, count in tasks[:MAX_TASKS]
        ],
        "more": len(tasks) > MAX_TASKS or is_cut,
    }


HOME_CARDS.add("jobs")(
    HomeCard(70, "admin/home/jobs.html", read_jobs, "procrastinate.view_procrastinatejob")
)
