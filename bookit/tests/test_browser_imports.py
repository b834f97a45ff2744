"""The import page of the admin site in a real browser, and its messages if an upload fails."""

import pytest

from accounts.models import User
from accounts.tests.factories import AdminFactory
from bookit.tests.browser import needs_chromium, sign_in

pytestmark = [needs_chromium, pytest.mark.django_db(transaction=True)]


def check_file(page, text):
    page.goto("/admin/import/")
    file = {"name": "customers.csv", "mimeType": "text/csv", "buffer": text.encode()}
    page.get_by_label("CSV file").set_input_files([file])
    page.get_by_role("button", name="Check the file").click()


def test_a_file_is_corrected_and_imported_and_failed_uploads_are_explained(watched):
    page = watched.page
    sign_in(page, AdminFactory())
    page.get_by_role("link", name="Import", exact=True).first.click()

    check_file(page, "email;name\r\nana@example.com;Ana\r\nnobody;Ben\r\n")
    page.get_by_role("heading", name="1 line has to be corrected").wait_for()
    assert page.get_by_role("row", name="3 email").is_visible()
    page.get_by_role("link", name="Choose the corrected file").click()

    check_file(page, 'email;name\r\nana@example.com;"Ana\r\nSilva"\r\nben@example.com;Ben\r\n')
    page.get_by_role("button", name="Import 2 lines").click()
    page.get_by_role("heading", name="2 lines were imported").wait_for()
    page.get_by_role("link", name="Show the list: Customers").click()
    page.get_by_text("ben@example.com").first.wait_for()
    assert User.objects.get(email="ana@example.com").name == "Ana\nSilva"

    check_file(page, "x" * 1_100_000)
    page.get_by_role("alert").get_by_text("too large").wait_for()
    watched.assert_no_errors()  # Checked here, because the test causes errors below.
    for respond, text in (
        (lambda route: route.abort(), "connection was lost"),
        # The response ends after a line of progress, without the result.
        (lambda route: route.fulfill(body='{"done": 1, "total": 2}\n'), "connection was lost"),
        (lambda route: route.fulfill(status=403), "did not accept the file"),
        (lambda route: route.fulfill(status=503), "did not accept the file"),
        (lambda route: route.fulfill(status=413), "too large"),
    ):
        page.route("**/admin/import/", respond, times=1)
        page.get_by_label("CSV file").set_input_files(
            [{"name": "a.csv", "mimeType": "text/csv", "buffer": b"email,name\n"}]
        )
        page.get_by_role("button", name="Check the file").click()
        page.get_by_role("alert").get_by_text(text).wait_for()
