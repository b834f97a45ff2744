"""Every kind of page of the admin site works in a real browser, with the data of the demo town.

The first two tests follow the links from the home page; the first also follows those from the list
of each model. A page must have no serious accessibility fault (axe-core), log no error, send no
request to another host, and fit the window. `pytest --screenshots` also stores pictures of the
pages.
"""

from collections import deque
from datetime import timedelta
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib import admin
from django.core.management import call_command
from django.urls import Resolver404, resolve, reverse
from django.utils import timezone

from accounts.tests.factories import AdminFactory, UserFactory, staff
from bookit.adminsite.tests.conftest import boss, world  # noqa: F401 - fixtures
from bookit.tests.browser import needs_chromium, sign_in

pytestmark = [needs_chromium, pytest.mark.django_db(transaction=True)]

PICTURES = Path(__file__).parents[2] / ".screenshots"
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
# Whether a page has finished loading and fading in. While it fades in, its colours are paler.
AT_REST = (
    "!document.querySelector('[aria-busy=true]')"
    " && document.getAnimations().every(each => each.playState !== 'running')"
)
# The width, in pixels, of content that is cut off, or that can be reached only by scrolling to the
# right. The browser rounds both widths, so 1 can mean that nothing is hidden.
HIDDEN = """() => Math.max(...[document.documentElement, ...document.querySelectorAll(
    '.main, .content, #content, #content-main, form, fieldset, .form-row, .card')]
    .map(each => each.scrollWidth - each.clientWidth))"""
# The script of axe-core, and a function that returns the accessibility faults of a page into which
# the script was loaded.
AXE = Axe().axe_script
VIOLATIONS = "options => axe.run(options).then(found => found.violations)"
# The endings of links to files.
FILES = (".csv", ".ics")


def kind(path):
    """Return the name of the kind of page at a path, or None if there is no page.

    Pages that differ only in their row are of one kind. All pages of history are one kind, and so
    are all pages that ask before a deletion.
    """
    try:
        match = resolve(path)
    except Resolver404:
        return None
    name = "_".join(filter(None, [match.url_name, match.kwargs.get("name")]))
    return next((each for each in ("history", "delete") if name.endswith(f"_{each}")), name)


def linked(page):
    """Return the paths of the pages of the admin site to which a page links, without files."""
    links = "links => links.map(link => link.getAttribute('href'))"
    found = [urljoin(page.url, href) for href in page.eval_on_selector_all("a[href]", links)]
    paths = [urlsplit(url).path for url in found if "/admin/" in url]
    return [path for path in paths if not path.endswith(FILES)]


class Walk:
    """Visits one page of each kind that can be reached through links.

    Args:
        watched: a page of the browser, whose errors are recorded.
        pictures: the folder for pictures; None to take none.
    """

    def __init__(self, watched, pictures):
        self.watched, self.page, self.pictures = watched, watched.page, pictures
        self.faults, self.seen = [], set()

    def run(self, *more):
        """Visit all kinds of pages, beginning with the home page and with `more`."""
        ahead = deque(["/admin/", *more])
        while ahead:
            path = ahead.popleft()
            name = kind(path)
            if name is None or name in self.seen:
                continue
            self.seen.add(name)
            self.page.goto(path)
            ahead.extend(linked(self.page))
            self.look(name)

    def look(self, name):
        """Check the accessibility of the current page in both themes, and whether it fits.

        The themes differ only in colours. So, unless pictures are taken, the page is resized only
        in the light theme.
        """
        page = self.page
        page.evaluate(AXE)
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            self.wait()
            self.check(theme)
            if theme == "dark" and self.pictures is None:
                continue
            for window, size in ("narrow", NARROW), ("wide", WIDE):
                page.set_viewport_size(size)
                hidden = page.evaluate(HIDDEN)
                if hidden > 1:
                    self.faults.append(f"{page.url}: {hidden} px are hidden in a {window} window")
                if self.pictures is not None:
                    self.pictures.mkdir(parents=True, exist_ok=True)
                    file = self.pictures / f"{name}-{window}-{theme}.png"
                    page.screenshot(path=file, full_page=True)

    def wait(self):
        """Wait until the page is at rest.

        The page's content security policy keeps `wait_for_function` from evaluating `AT_REST`.
        """
        for _ in range(100):
            if self.page.evaluate(AT_REST):
                return
            self.page.wait_for_timeout(50)
        self.faults.append(f"{self.page.url} is never at rest")

    def check(self, theme):
        """Record the accessibility faults of the current page.

        In the dark theme, only the contrast is checked, because only the colours differ.
        """
        rules = {"dark": {"runOnly": ["color-contrast"]}}.get(theme, {})
        # By default, axe-core loads the style sheets again. The page's policy forbids this, and an
        # `@import` in them would be resolved against the wrong URL.
        options = {"resultTypes": ["violations"], "preload": False, **rules}
        for fault in self.page.evaluate(VIOLATIONS, options):
            if fault["impact"] in ("serious", "critical"):
                places = "; ".join(node["html"][:200] for node in fault["nodes"][:3])
                self.faults.append(f"{self.page.url} ({theme}): {fault['help']}: {places}")


def test_every_page_is_readable_and_fits_the_window(watched, request):
    call_command("seed_demo", verbosity=0)
    # The demo town has no API keys, webhooks, deliveries, jobs, staff roles or profiles. This
    # fixture adds them. It is not a parameter, because it adds services, too, and `seed_demo` needs
    # a database without services.
    request.getfixturevalue("world")
    pictures = PICTURES / "admin" if request.config.getoption("screenshots") else None
    walk = Walk(watched, pictures)
    sign_in(walk.page, request.getfixturevalue("boss"))
    lists = [
        reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
        for model in admin.site._registry
    ]
    walk.run(*lists)
    assert {kind(path) for path in lists} <= walk.seen
    for each in ("apikey", "webhook", "delivery", "procrastinatejob", "role", "profile"):
        assert any(name.endswith(f"_{each}_change") for name in walk.seen), each
    assert not walk.faults, "\n".join(walk.faults)
    watched.assert_no_errors()


def test_a_receptionist_gets_only_pages_that_work(watched, request):
    call_command("seed_demo", verbosity=0)
    rui = staff(["bookings.view_booking"], name="Rui", timezone="Europe/Lisbon")
    pictures = PICTURES / "receptionist" if request.config.getoption("screenshots") else None
    walk = Walk(watched, pictures)
    sign_in(walk.page, rui)
    walk.run()
    assert {"index", "bookings_booking_changelist", "bookings_booking_change"} <= walk.seen
    assert not any(name.startswith(("accounts_", "catalog_")) for name in walk.seen)
    assert not walk.faults, "\n".join(walk.faults)
    watched.assert_no_errors()


@pytest.mark.parametrize(
    ("language", "path"),
    [
        ("pt", "/admin/day-sheets/?day=2026-11-29"),  # Domingo, 29 de novembro de 2026
        ("ru", "/admin/accounts/user/"),
    ],
)
def test_long_dates_and_ages_fit_on_a_small_phone(watched, language, path):
    user = AdminFactory(language=language)
    # "5 months, 1 week ago" in Russian is one of the longest texts of a list.
    UserFactory(created_at=timezone.now() - timedelta(days=161))
    watched.page.set_viewport_size({"width": 360, "height": 740})
    sign_in(watched.page, user)

    watched.page.goto(path)

    assert watched.page.evaluate(HIDDEN) <= 1
