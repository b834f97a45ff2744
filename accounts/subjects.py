"""What the jobs of accounts do and which accounts they are about, for the admin site."""

from collections.abc import Iterable, Sequence

from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from accounts.models import User
from bookit.jobs.extensions import JOB_SUBJECTS, TASK_WORDS, Arguments, Subject, uuid_in

for _task, _words in {
    "accounts.send_mail": _("Email about an account"),
    "accounts.erase_again": _("Erase what is left of a deleted account"),
    "accounts.tasks.prune_tokens": _("Delete expired sessions and tokens"),
}.items():
    TASK_WORDS.add(_task)(_words)


@JOB_SUBJECTS.add("accounts.send_mail", "accounts.erase_again")
def _of_users(jobs: Sequence[Arguments]) -> Iterable[Subject | None]:
    """Yield the account of each job, or else the email address, or None.

    A password reset names only an email address. A job that erases an account again gets None,
    because the account has been deleted.
    """
    ids = [uuid_in(args.get("user_id")) for args in jobs]
    users = User.objects.present().filter(pk__in=[each for each in ids if each]).in_bulk()
    for user_id, args in zip(ids, jobs, strict=True):
        user = users.get(user_id) if user_id else None
        if user is not None:
            yield Subject(user.email, reverse("admin:accounts_user_change", args=[user.pk]))
        else:
            email = args.get("email")
            yield Subject(email) if isinstance(email, str) else None
