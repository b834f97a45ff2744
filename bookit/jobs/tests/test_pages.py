"""The admin pages of jobs: what a job does, what it is about, and why it failed."""

from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from procrastinate.contrib.django import app
from procrastinate.contrib.django.models import ProcrastinateEvent, ProcrastinateJob

from accounts.tests.factories import AdminFactory, UserFactory, staff
from bookings import events
from bookings.models import BookingEvent
from bookings.tests.factories import (
    BookingFactory,
    SlotFactory,
    WaitlistEntryFactory,
    WebhookFactory,
)
from bookit.jobs.admin import EVENTS, STATES, JobAdmin
from bookit.jobs.extensions import JOB_SUBJECTS, TASK_WORDS
from bookit.jobs.models import JobFailure
from bookit.tests.crowd import run

pytestmark = pytest.mark.django_db

PAGE = "/admin/procrastinate/procrastinatejob/"
ERROR = "SMTPServerDisconnected: Connection unexpectedly closed"


@pytest.fixture
def site():
    client = Client()
    client.force_login(AdminFactory(timezone="Asia/Tokyo"))
    return client


def event_of(booking):
    return events.record(booking, BookingEvent.Type.CREATED, actor=None, at=timezone.now())


def job(task, *, status="todo", **args):
    """Store a job, and return its id. A failed job also has an error."""
    job_id = app.configure_task(task).defer(**args)
    if status == "failed":
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE procrastinate_jobs SET status = 'failed', attempts = 9 WHERE id = %s",
                [job_id],
            )
        JobFailure.objects.create(job_id=job_id, at=timezone.now(), error=ERROR)
    return job_id


def text(response):
    assert response.status_code == 200
    return response.getvalue().decode()


def test_every_task_has_words():
    ours = {name for name in app.tasks if "builtin" not in name}
    assert TASK_WORDS.keys() == ours


def test_every_task_that_has_a_subject_names_it():
    """Periodic tasks have no subject; every other task has one."""
    app.perform_import_paths()
    periodic = {each.task.name for each in app.periodic_registry.periodic_tasks.values()}
    ours = {name for name in app.tasks if "builtin" not in name}
    assert JOB_SUBJECTS.keys() == ours - periodic


def test_the_list_says_what_a_job_does_which_booking_it_is_about_and_why_it_failed(site):
    booking = BookingFactory(
        user=UserFactory(name="Ana Silva"),
        service__title="Haircut",
        service__calendar__timezone="Europe/Lisbon",
    )
    job(
        "bookings.send_mail",
        status="failed",
        event_id=str(event_of(booking).pk),
        audience="attendee",
    )
    page = text(site.get(PAGE))
    assert "Email about a booking" in page
    assert f"/admin/bookings/booking/{booking.pk}/change/" in page
    assert "Haircut, Ana Silva, Tue 1 Jan 2999, 10:00 (Europe/Lisbon)" in page
    assert ERROR in page
    assert "9 attempts" in page


def test_each_kind_of_job_names_its_subject(site):
    user, webhook, slot = UserFactory(), WebhookFactory(), SlotFactory()
    job("accounts.send_mail", kind="verification", email=user.email, user_id=str(user.pk))
    job("accounts.send_mail", kind="password_reset", email="nobody@example.com", user_id=None)
    job("bookings.deliver", webhook_id=str(webhook.pk))
    job("bookings.offer_seats", slot_ids=[str(slot.pk)])
    waiting = WaitlistEntryFactory(slot=SlotFactory(), user=user)
    job("bookings.send_queue_mail", entry_id=str(waiting.pk))
    page = text(site.get(PAGE))
    assert f"/admin/accounts/user/{user.pk}/change/" in page
    assert "nobody@example.com" in page
    assert f"/admin/bookings/webhook/{webhook.pk}/change/" in page
    assert f"/admin/bookings/slot/{slot.pk}/change/" in page
    assert f"/admin/bookings/slot/{waiting.slot_id}/change/" in page


def test_a_job_about_a_deleted_booking_says_so(site):
    booking = BookingFactory()
    event = event_of(booking)
    booking.delete()
    job("bookings.send_mail", event_id=str(event.pk), audience="attendee")
    assert "a booking that was deleted" in text(site.get(PAGE))


def test_an_email_about_a_booking_of_a_deleted_account_links_to_the_booking(site):
    booking, gone = BookingFactory(), BookingFactory()
    gone.delete()
    job("bookings.send_composed_mail", mail={"booking_id": str(booking.pk)}, user_id="")
    assert f"/admin/bookings/booking/{booking.pk}/change/" in text(site.get(PAGE))
    assert "a booking that was deleted" not in text(site.get(PAGE))
    job("bookings.send_composed_mail", mail={"booking_id": str(gone.pk)}, user_id="")
    assert "a booking that was deleted" in text(site.get(PAGE))


def test_the_page_of_a_job_shows_its_arguments_but_not_the_email_in_them(site):
    pk = job("bookings.send_composed_mail", mail={"text": "Bad knee."}, user_id="no account")
    page = text(site.get(f"{PAGE}{pk}/change/"))
    assert "no account" in page
    assert "Bad knee." not in page


@pytest.mark.parametrize(
    "args",
    [
        {"event_id": "x"},
        {"event_id": 2**70},
        {"event_ids": []},
        {"event_ids": [None]},
        {"user_id": 7},
        {"webhook_id": "no id"},
        {"slot_ids": "abc"},
        {"entry_id": ["abc"]},
        {},
    ],
)
def test_jobs_with_invalid_arguments_are_also_listed(site, args):
    for task in JOB_SUBJECTS:
        text(site.get(f"{PAGE}{job(task, **args)}/change/"))
    text(site.get(PAGE))


def test_the_number_of_queries_does_not_depend_on_the_number_of_jobs(site):
    def fill():
        event = event_of(BookingFactory())
        job("bookings.send_mail", status="failed", event_id=str(event.pk), audience="attendee")
        job("bookings.follow_up", event_ids=[str(event.pk)])
        job("bookings.deliver", webhook_id=str(WebhookFactory().pk))
        job("accounts.erase_again", user_id=str(UserFactory().pk))

    def queries():
        with CaptureQueriesContext(connection) as captured:
            text(site.get(PAGE))
        return len(captured)

    fill()
    site.get(PAGE)
    few = queries()
    for _ in range(5):
        fill()
    assert queries() == few <= 12


def test_the_page_of_a_failed_job_shows_its_error_and_a_button_that_retries_it(site):
    job_id = job("bookings.complete", status="failed", timestamp=0)
    page = text(site.get(f"{PAGE}{job_id}/change/"))
    assert ERROR in page
    assert "(Asia/Tokyo)" in page
    assert f"{PAGE}{job_id}/act/retry_failed/" in page
    response = site.post(f"{PAGE}{job_id}/act/retry_failed/", follow=True)
    assert response.redirect_chain[-1][0] == f"{PAGE}{job_id}/change/"
    assert "1 job will run again now." in text(response)
    assert ProcrastinateJob.objects.get(pk=job_id).status == "todo"
    assert "Retried." in text(site.get(f"{PAGE}{job_id}/history/"))


def test_the_log_says_in_the_language_of_the_admin_that_a_job_was_retried(client):
    client.force_login(AdminFactory(language="de"))
    job_id = job("bookings.complete", status="failed", timestamp=0)
    client.post(f"{PAGE}{job_id}/act/retry_failed/")
    assert LogEntry.objects.get().change_message == "Wiederholt."


@pytest.mark.parametrize("meanwhile", ["doing", "todo", None])
def test_a_job_that_was_retried_or_deleted_meanwhile_is_not_retried(site, meanwhile, monkeypatch):
    # The latest job is retried first.
    second = job("bookings.send_mail", status="failed", event_id=7, audience="attendee")
    first = job("bookings.complete", status="failed", timestamp=0)
    changed = ProcrastinateJob.objects.filter(pk=second)
    log_change = JobAdmin.log_change

    def retry_or_delete_the_second_job(*arguments):
        log_change(*arguments)
        if meanwhile:
            run("UPDATE procrastinate_jobs SET status = %s WHERE id = %s", [meanwhile, second])
        else:
            run("DELETE FROM procrastinate_jobs WHERE id = %s", [second])

    monkeypatch.setattr(JobAdmin, "log_change", retry_or_delete_the_second_job)
    form = {"action": "retry_failed", "_selected_action": [first, second]}
    page = text(site.post(PAGE, form, follow=True))
    assert "1 job will run again now." in page
    assert "Only jobs that have failed can be retried." in page
    assert ProcrastinateJob.objects.get(pk=first).status == "todo"
    assert [*changed.values_list("status", flat=True)] == ([meanwhile] if meanwhile else [])


def test_a_job_that_will_be_retried_later_can_be_retried_now(site):
    """The mail server works again, but the next attempt is hours away."""
    job_id = job("bookings.send_mail", event_id=7, audience="attendee")
    JobFailure.objects.create(job_id=job_id, at=timezone.now(), error=ERROR)
    later = timezone.now() + timedelta(hours=18)
    run("UPDATE procrastinate_jobs SET scheduled_at = %s WHERE id = %s", [later, job_id])
    button = f"{PAGE}{job_id}/act/retry_failed/"
    assert button not in text(site.get(f"{PAGE}{job_id}/change/"))
    run("UPDATE procrastinate_jobs SET attempts = 7 WHERE id = %s", [job_id])
    assert button in text(site.get(f"{PAGE}{job_id}/change/"))

    assert "1 job will run again now." in text(site.post(button, follow=True))

    found = ProcrastinateJob.objects.get(pk=job_id)
    assert (found.status, found.attempts) == ("todo", 7)
    assert found.scheduled_at <= timezone.now()
    assert "Only jobs that have failed can be retried." in text(site.post(button, follow=True))


def test_a_waiting_job_has_no_button_that_retries_it(site):
    job_id = job("bookings.complete", timestamp=0)
    page = text(site.get(f"{PAGE}{job_id}/change/"))
    assert "as soon as possible" in page
    assert "retry_failed" not in page


def test_the_list_of_jobs_is_downloaded_with_the_errors(site):
    job_id = job("bookings.complete", status="failed", timestamp=0)
    job("bookings.send_mail", event_id=7, audience="attendee")
    rows = text(site.get(f"{PAGE}export.csv")).splitlines()
    assert len(rows) == 3
    assert rows[2].startswith(f"{job_id},bookings.complete,failed,9,")
    assert rows[2].endswith(ERROR)


def test_staff_who_may_only_see_bookings_see_no_jobs():
    client = Client()
    client.force_login(staff(["bookings.view_booking"]))
    job_id = job("bookings.complete", status="failed", timestamp=0)
    assert client.get(PAGE).status_code == 403
    assert client.get(f"{PAGE}{job_id}/change/").status_code == 403
    assert client.post(f"{PAGE}{job_id}/act/retry_failed/").status_code == 403
    assert ProcrastinateJob.objects.get(pk=job_id).status == "failed"


def test_every_state_and_every_event_of_a_job_has_words():
    assert set(ProcrastinateJob.STATUSES) <= STATES.keys()
    assert set(ProcrastinateEvent.TYPES) <= EVENTS.keys()
