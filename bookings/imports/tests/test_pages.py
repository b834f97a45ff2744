"""The page that imports CSV files: upload, check, confirm, result."""

import csv
import io
import json
import re
from html import unescape

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import InterfaceError, OperationalError, ProgrammingError

from accounts.models import User
from accounts.tests.factories import AdminFactory, UserFactory, staff
from bookings.imports.lines import KINDS
from bookings.imports.pages import MAX_BYTES, MAX_UNSCRIPTED
from bookit.runtime.startup import BASE_DIR

pytestmark = pytest.mark.django_db

PAGE = "/admin/import/"
CUSTOMERS = 'email,name\nana@example.com,Ana Silva\nben@example.com,"<b>Ben\n& Co</b>"\n'


@pytest.fixture
def site(client):
    client.force_login(AdminFactory())
    return client


def upload(site, content, kind="customers", encoding="", **headers):
    content = content if isinstance(content, bytes) else content.encode()
    file = SimpleUploadedFile("list.csv", content, "text/csv")
    return site.post(PAGE, {"kind": kind, "file": file, "encoding": encoding}, headers=headers)


def hidden_text(page):
    """Return what a browser sends back for the hidden field."""
    found = re.search(r'<textarea name="text" hidden>\n(.*?)</textarea>', page, re.DOTALL)
    return unescape(found[1]).replace("\n", "\r\n")


def confirm(site, page, **headers):
    cells = {"kind": "customers", "name": "list.csv", "text": hidden_text(page), "apply": "yes"}
    return site.post(PAGE, cells, headers=headers)


def test_a_file_is_checked_and_then_imported(site):
    page = upload(site, CUSTOMERS).content.decode()

    assert "Import 2 lines" in page
    assert not User.objects.filter(email="ana@example.com").exists()
    page = confirm(site, page).content.decode()
    assert "2 lines were imported" in page
    assert User.objects.get(email="ben@example.com").name == "<b>Ben\n& Co</b>"
    page = upload(site, CUSTOMERS).content.decode()
    assert "There is nothing to import" in page
    assert "Everything in this file exists already." in page
    assert "ready to be imported" not in page


def test_wrong_lines_are_named_and_cannot_be_imported(site):
    page = upload(site, CUSTOMERS + "nobody,<i>\n").content.decode()

    assert "1 line has to be corrected" in page
    assert '<td data-label="Line">5</td><td><code>email</code></td>' in page
    assert 'name="apply"' not in page


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", "The submitted file is empty."),
        ("name\nAna\n", "The column email is missing."),
        (b"email,name\njo@example.com,Jo\xe3o\n", "The file is not in this encoding."),
        (b"PK\x03\x04", "This is a spreadsheet."),
        ("x" * (MAX_BYTES + 1), "The file is too large for this page."),
        ("email,name\n" + "a@example.com,A\n" * (MAX_UNSCRIPTED + 1), "Without JavaScript"),
    ],
)
def test_a_file_that_cannot_be_read_or_is_too_large_is_refused_at_its_field(site, content, text):
    page = upload(site, content).content.decode()

    assert re.search(r'<ul class="errorlist"[^>]*><li>' + text, page)
    assert "id_kind_0" in page, "the form is not shown again"


def test_the_encoding_can_be_chosen(site):
    page = upload(site, "email,name\njo@example.com,João\n".encode("cp1252"), encoding="cp1252")

    assert "João" in page.content.decode()


def test_the_script_gets_the_progress_and_then_the_result(site):
    text = "email,name\n" + "".join(f"c{n}@example.com,C\n" for n in range(1100))
    response = upload(site, text, accept="application/x-ndjson")

    *progress, last = [json.loads(line) for line in response.getvalue().splitlines()]
    assert [each["done"] for each in progress] == [0, 500, 1000, 1100]
    assert {each["total"] for each in progress} == {1100}
    assert "Import 1100 lines" in last["html"]
    response = confirm(site, last["html"], accept="application/x-ndjson")
    assert "1100 lines were imported" in response.getvalue().decode()
    assert User.objects.filter(name="C").count() == 1100


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
def test_a_lost_database_is_reported_although_the_response_has_begun(site, monkeypatch, error):
    def refuse(*args, **options):
        raise error("the connection is lost")

    monkeypatch.setattr(KINDS["customers"], "load", refuse)
    response = upload(site, CUSTOMERS, accept="application/x-ndjson")
    text = response.getvalue().decode()
    assert "The database is unavailable or took too long. Check the file again" in text
    # "Nothing was imported" could be false: the connection may be lost during the commit.
    assert "Nothing was imported" not in text


def test_control_a_bug_in_an_import_is_not_reported_as_a_lost_database(site, monkeypatch):
    def refuse(*args, **options):
        raise ProgrammingError("syntax error")

    monkeypatch.setattr(KINDS["customers"], "load", refuse)
    with pytest.raises(ProgrammingError):
        upload(site, CUSTOMERS, accept="application/x-ndjson").getvalue()


def test_a_refusal_reaches_the_script_too(site):
    for content in ("name\nAna\n", b"PK\x03\x04"):
        response = upload(site, content, accept="application/x-ndjson")
        [line] = b"".join(response).splitlines()
        assert "errorlist" in json.loads(line)["html"]


def test_only_admins_import(client):
    client.force_login(staff(["bookings.view_booking", "bookings.add_booking"]))

    assert client.get(PAGE).status_code == 403
    assert client.get(f"{PAGE}customers.csv").status_code == 403
    assert upload(client, CUSTOMERS).status_code == 403
    assert PAGE not in client.get("/admin/").content.decode()
    client.force_login(UserFactory())
    assert client.get(PAGE).status_code == 302


@pytest.mark.one_server("opens the home page in a transaction that has changed a reference table")
def test_the_page_is_in_the_menu_of_admins(site):
    assert f'href="{PAGE}"' in site.get("/admin/").content.decode()


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_has_all_columns(site, kind):
    response = site.get(f"{PAGE}{kind}.csv")

    assert f'filename="{kind}.csv"' in response["Content-Disposition"]
    [header, *rows] = csv.reader(io.StringIO(response.getvalue().decode("utf-8-sig")))
    assert header == [*KINDS[kind].base_fields]
    assert len(rows) == 2


def test_an_unknown_kind_of_file_has_no_example(site):
    assert site.get(f"{PAGE}shoes.csv").status_code == 404


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_and_the_documentation_list_all_columns(site, kind):
    page = site.get(PAGE).content.decode()
    [row] = re.findall(
        rf"^\| `{kind}` \| (.*?) \|", (BASE_DIR / "docs/importing.md").read_text(), re.M
    )

    for name, field in KINDS[kind].base_fields.items():
        assert f"<code>{name}</code>" in page
        assert (f"**`{name}`**" if field.required else f", `{name}`") in row
