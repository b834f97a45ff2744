"""Fixtures for tests that use a real browser."""

import os
from urllib.parse import urlsplit

import pytest

from bookit.tests.browser import CHROMIUM, NO_OTHER_HOST, Watched


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    # Playwright's event loop makes Django believe that this thread is asynchronous.
    before = os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[*NO_OTHER_HOST, *(["--no-sandbox"] if os.geteuid() == 0 else [])],
        )
        yield browser
        browser.close()
    if before is None:
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def watched(chromium, live_server):
    context = chromium.new_context(
        base_url=live_server.url, viewport={"width": 1300, "height": 900}
    )
    context.set_default_timeout(10_000)
    yield Watched(context.new_page(), urlsplit(live_server.url).netloc)
    context.close()
