"""The extension points through which apps describe their tasks and jobs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from bookit.extensions import Extensions


class Subject(NamedTuple):
    """What a job is about.

    Args:
        words: a description, for example the service, the attendee and the time of a booking.
        path: the path of the subject's page in the admin site; empty if there is no page.
    """

    words: Any
    path: str = ""


Arguments = Mapping[str, Any]

# For each task, by its name: what its jobs do, in words that operators understand.
TASK_WORDS: Extensions[Any] = Extensions()

# For each task whose jobs have a subject: a function that takes the arguments of many jobs, and
# returns a subject or None for each job. It handles many jobs at once, so that the number of
# queries does not depend on the number of jobs. It must accept any arguments, even invalid ones.
JOB_SUBJECTS: Extensions[Callable[[Sequence[Arguments]], Iterable[Subject | None]]] = Extensions()


def uuid_in(value: Any) -> UUID | None:
    """Return the argument of a job as an id; None if the argument is not an id."""
    try:
        return UUID(value)
    except (AttributeError, TypeError, ValueError):
        return None
