"""The system's Chromium, and helpers for the tests that use it."""

import shutil
from urllib.parse import urlsplit

import pytest

from accounts.tests.factories import PASSWORD

CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


# With this argument, Chromium finds no host except this machine. If Playwright intercepted requests
# instead, Chromium would use no cache, and each page would load all styles and scripts again.
NO_OTHER_HOST = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"]


class Watched:
    """Records a page's errors, and its requests to other hosts."""

    def __init__(self, page, host):
        self.page, self.host = page, host
        self.outside, self.errors = [], []
        page.on("request", self.note_other_host)
        page.on("console", lambda message: message.type == "error" and self.record(message.text))
        page.on("pageerror", lambda error: self.record(str(error)))
        page.on("response", lambda response: response.status >= 400 and self.record(response.url))
        # Leaving a page before its last image has loaded aborts the request for the image.
        page.on(
            "requestfailed",
            lambda request: (
                request.failure == "net::ERR_ABORTED"
                or self.record(f"{request.url} {request.failure}")
            ),
        )

    def record(self, text):
        self.errors.append(text)

    def note_other_host(self, request):
        if urlsplit(request.url).netloc not in (self.host, ""):  # A `data:` URL has no host.
            self.outside.append(request.url)

    def assert_no_errors(self):
        assert not self.outside, "\n".join(self.outside)
        assert not self.errors, "\n".join(self.errors)


def sign_in(page, user, password=PASSWORD):
    """Sign in, and wait until the next page has loaded.

    Without this wait, a test could find a link that the style sheets are about to hide.
    """
    page.goto("/admin/")
    # In upper case, to check that the case of the address does not matter.
    page.get_by_label("Email address").fill(user.email.upper())
    page.get_by_label("Password").fill(password)
    with page.expect_navigation():
        page.get_by_role("button", name="Log in").click()
