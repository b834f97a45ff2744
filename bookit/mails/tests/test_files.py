"""Emails are written to files; the log names the file but not its content."""

import email
import json
import re

import pytest
from django.core.mail import EmailMultiAlternatives

from bookit.mails.files import FileBackend

SUBJECT, ADDRESS, LINK = "A secret subject", "mia@example.com", "https://example.com/?token=t0k3n"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "mails"


def send(folder, count=1):
    mails = [
        EmailMultiAlternatives(SUBJECT, f"Ol\u00e1! {LINK}", to=[ADDRESS]) for _ in range(count)
    ]
    for mail in mails:
        mail.attach_alternative(f"<p>{LINK}</p>", "text/html")
    return FileBackend(file_path=str(folder)).send_messages(mails)


def test_each_email_is_a_file_that_email_clients_can_open(folder):
    assert send(folder, 3) == 3
    files = sorted(folder.iterdir())
    assert len(files) == 3
    for file in files:
        assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{6}\.eml", file.name)
        mail = email.message_from_bytes(file.read_bytes())
        assert (mail["Subject"], mail["To"]) == (SUBJECT, ADDRESS)
        assert LINK in file.read_text()  # The link is not wrapped, so it can be copied.


def test_other_users_of_the_machine_cannot_read_the_emails(folder):
    send(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}


def test_the_log_names_the_file_but_not_the_content(folder, log_lines):
    send(folder)
    [file] = folder.iterdir()
    [line] = log_lines()
    assert line["message"] == f"mail written to {file}"
    for secret in (SUBJECT, ADDRESS, "t0k3n", "Ol\u00e1"):
        assert secret not in json.dumps(line, ensure_ascii=False)


def test_sending_fails_if_the_folder_cannot_be_created(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        send(tmp_path / "file")
