"""A browser that follows links, and then sends wrong requests and forms with wrong fields.

There are more wrong requests than a test run has time for, so the crawler sends a sample: at least
one for each kind of page, parameter, field and action. A seed determines the sample, so that a run
can be repeated. Each complaint comes with the request as a curl command.
"""

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from shlex import quote
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

from django.conf import settings
from django.test import Client

from bookit.tests.plugin import shared_handler

SEED = 20260101
MEBIBYTE = 1024 * 1024

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
#: An id that no row has.
UNKNOWN_ID = "01a00000-0000-7000-8000-000000000000"

# Values that replace an id in a path. They are already percent-encoded.
IDS = [
    UNKNOWN_ID,
    "abc",
    "0",
    "-1",
    "9" * 40,
    "9" * 5000,
    "%00",
    "a%00b",
    "%20",
    "_00",
    "_ZZ",
    "_",
    "%ED%A0%80",
    "%FF",
    "%EF%BC%95",
    "None",
    "1.5",
    "1e3",
    "..%2F..",
    "%7B%7D",
    UNKNOWN_ID.upper(),
    UNKNOWN_ID.replace("-", ""),
    "add",
]

# Values that replace a parameter of a URL.
PARAMETERS = [
    "",
    "0",
    "-1",
    "1",
    "abc",
    "13",
    "99999",
    "9" * 40,
    "9" * 5000,
    "1.5",
    "1e400",
    "NaN",
    "\0",
    "a\0b",
    "\ud800",
    "\uff15",
    "2024-02-31",
    "9999-12-31 23:59:59",
    "10000-01-01",
    "0001-01-01 00:00:00+14:00",
    UNKNOWN_ID,
    "True",
    "[]",
    "(",
    "%",
    "a,b",
    "-0.-1.2.abc.-",
    ".".join(["1", "-1"] * 400),
    "//evil.example/",
    "javascript:alert(1)",
    "x" * 4000,
]

# Parameters that all pages accept, and parameters that all lists accept, even if no link names
# them.
KNOWN = ["_popup", "_to_field", "_changelist_filters"]
KNOWN_BY_LISTS = ["p", "o", "q", "all", "e", "_facets"]

# Values that replace a field of a form.
FIELDS = [
    "",
    " ",
    "abc",
    "0",
    "-1",
    "9" * 400,
    str(2**31),
    str(2**63),
    "1e400",
    "NaN",
    "-Infinity",
    "0.001",
    "\0",
    "a\0b",
    "\ud800",
    "\uff15",
    "\u202e\u200b",
    "x" * 20_000,
    "0001-01-01",
    "9999-12-31",
    "10000-01-01",
    "2024-02-31",
    "2026-03-29",
    "02:30:00",
    "23:59:59.999999999",
    "25:61",
    "24:00",
    UNKNOWN_ID,
    "<script>alert(1)</script>",
    "[]",
]
# Values that replace a field that contains the number of rows of a formset.
COUNTS = ["", "abc", "-1", "0", "20", str(10**9), "9" * 5000, "\0"]
# A body that is too large, a body that is no form, and a body with too many fields.
BODIES = ["x=" + "y" * MEBIBYTE, "%ff=%ff&&&=&;", "&".join(["f="] * 1100)]
# For each kind of page and each form, the crawler makes up this many requests with several mistakes
# at once, and sends a sample of them.
COMBINATIONS = 100
# Redirects to each kind of page are followed at most this many times, unless the crawler sends all
# wrong requests.
ARRIVALS = 3


class Case(NamedTuple):
    """A wrong request.

    Args:
        subject: the part of the request that is wrong. Each subject is tried at least once.
    """

    subject: str
    method: str
    url: str
    body: str | list[tuple[str, str]] = ""


@dataclass
class Form:
    """A form of a page: its target, and the fields that a browser would send.

    Args:
        choices: the values of each `select`, and of the checkboxes that select the rows of a list.
        buttons: a browser would send only the one that was pressed.
    """

    path: str
    method: str
    fields: list[tuple[str, str]] = field(default_factory=list)
    choices: dict[str, list[str]] = field(default_factory=dict)
    buttons: list[tuple[str, str]] = field(default_factory=list)


class Page(HTMLParser):
    """The links and forms of a page."""

    def __init__(self, path: str, text: str) -> None:
        super().__init__()
        self.path = path
        self.links: list[str] = []
        self.forms: list[Form] = []
        self._select: tuple[str, list[str], list[str]] | None = None
        self._area: tuple[str, list[str]] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        # A browser ignores the second of two attributes with the same name.
        assert len(attributes) == len(attrs), f"{self.path}: <{tag}> repeats an attribute: {attrs}"
        if tag == "a" and attributes.get("href"):
            self.links.append(urljoin(self.path, attributes["href"]))
        if "data-ajax--url" in attributes:
            names = ("app-label", "model-name", "field-name")
            query = {name.replace("-", "_"): attributes[f"data-{name}"] for name in names}
            self.links.append(f"{attributes['data-ajax--url']}?{urlencode({**query, 'term': 'a'})}")
        if tag == "form":
            action = urljoin(self.path, attributes.get("action") or self.path)
            self.forms.append(Form(action, attributes.get("method", "get").lower()))
        if not self.forms:
            return
        form, name = self.forms[-1], attributes.get("name", "")
        if tag == "input" and name and name != "csrfmiddlewaretoken":
            kind = attributes.get("type", "text")
            if kind == "submit":
                form.buttons.append((name, attributes.get("value", "")))
            elif kind not in ("checkbox", "radio") or "checked" in attributes:
                form.fields.append(
                    (name, attributes.get("value", "on" if kind == "checkbox" else ""))
                )
            elif name == "_selected_action":
                form.choices.setdefault(name, []).append(attributes.get("value", ""))
        elif tag == "button" and name:
            form.buttons.append((name, attributes.get("value", "")))
        elif tag == "select" and name:
            self._select = (name, [], [])
        elif tag == "option" and self._select:
            self._select[1].append(attributes.get("value", ""))
            if "selected" in attributes:
                self._select[2].append(attributes.get("value", ""))
        elif tag == "textarea" and name:
            self._area = (name, [])

    def handle_endtag(self, tag: str) -> None:
        if tag == "select" and self._select:
            name, options, selected = self._select
            self.forms[-1].choices[name] = options
            self.forms[-1].fields += [(name, value) for value in selected or options[:1]]
            self._select = None
        elif tag == "textarea" and self._area:
            self.forms[-1].fields.append((self._area[0], "".join(self._area[1])))
            self._area = None

    def handle_data(self, data: str) -> None:
        if self._area:
            self._area[1].append(data)


def encode(pairs: list[tuple[str, str]]) -> str:
    """Return a query string or a body; a lone surrogate is encoded as three bytes."""
    return urlencode(pairs, errors="surrogatepass")


class Browser(Client):
    """Django's test client without the recording of rendered templates.

    Each input of a form is a small template. Copying the contexts of all these templates takes
    longer than the rest of the request.
    """

    def request(self, **request: Any) -> Any:
        """Send a request and return its response, even if a view raises an exception."""
        handler = shared_handler(tuple(settings.MIDDLEWARE))
        response = handler(self._base_environ(**request))  # type: ignore[attr-defined]
        self.cookies.update(response.cookies)
        return response


class Crawler:
    """Sends requests, and collects complaints about wrong responses.

    Args:
        user: an admin.
        each: the number of wrong requests for each subject; 0 means all.
        signed_in: whether the crawler signs in, at the beginning and whenever it was signed out.
    """

    def __init__(
        self, user: Any, each: int = 1, seed: int = SEED, *, signed_in: bool = True
    ) -> None:
        self.user = user
        self.signed_in = signed_in
        self.each = each
        self.random = random.Random(seed)
        self.client = Browser()
        self.sign_in()
        self.sent = 0
        self.subjects: set[str] = set()
        self.complaints: dict[str, str] = {}
        self.arrivals: dict[str, int] = {}

    def sign_in(self) -> None:
        """Sign in, or remove the session if `signed_in` is false."""
        if self.signed_in:
            self.client.force_login(self.user)
        else:
            self.client.cookies.clear()

    # --- one request --------------------------------------------------------------------------

    def get(self, url: str) -> Any:
        """Send a GET request."""
        return self.send("GET", url)

    def send(self, method: str, url: str, body: str = "") -> Any:
        """Send a request, and check the response and the page to which it redirects."""
        response = self.look(method, url, body)
        if response.status_code in (301, 302):
            self.arrive(urljoin(url, response["Location"]))
        return response

    def look(self, method: str, url: str, body: str = "", when: str = "") -> Any:
        """Send a request and check the response."""
        self.sent += 1
        path, _, query = url.partition("?")
        response = self.client.generic(
            method,
            path,
            body,
            content_type="application/x-www-form-urlencoded",
            QUERY_STRING=query,
        )
        wrong = self.complaint_about(url, response)
        if wrong:
            self.complaints.setdefault(
                f"{wrong} {method} {shape_of(path)[:120]}{when}", self.curl(method, url, body)
            )
        return response

    def arrive(self, location: str) -> None:
        """Check the target of a redirect.

        If the request may have signed the crawler in or out, restore the user and the session
        instead.
        """
        if "/login/" in location or not self.signed_in:
            self.user.__class__.objects.filter(pk=self.user.pk).update(is_active=True, role="admin")
            self.user.refresh_from_db()
            self.sign_in()
            return
        kind = shape_of(location)
        self.arrivals[kind] = self.arrivals.get(kind, 0) + 1
        if self.arrivals[kind] <= ARRIVALS or not self.each:
            self.look("GET", location, when=", after a redirect")
        else:
            # The page is not opened, so remove the messages that it would have shown.
            self.client.cookies.pop("messages", None)

    def complaint_about(self, url: str, response: Any) -> str:
        """Return a short complaint about a wrong response, or an empty text."""
        kind = response.get("Content-Type", "")
        if response.status_code >= 500:
            return f"{response.status_code}"
        if response.status_code in (301, 302):
            # A relative redirect, for example after `?next=abc`, stays on this site.
            there = urlsplit(urljoin(url, response["Location"]))
            return "" if not (there.scheme or there.netloc) else "redirects to another site"
        text = "" if response.streaming else response.content.decode()
        if "Traceback (most recent call last)" in text:
            return "traceback"
        if "/autocomplete/" in url and response.status_code == 200:
            return "" if kind == "application/json" else kind
        if "/jsi18n/" in url and response.status_code == 200:
            return "" if kind.startswith("text/javascript") else kind
        if "/export." in url and response.streaming:
            return ""  # a file with the rows of a list
        if not kind.startswith("text/html"):
            return kind
        if "</html>" not in text or ("<h1" not in text and response.status_code >= 400):
            return f"{response.status_code} without a page"
        if "Database error" in text or "database installation" in text:
            return "blames the database"
        return ""

    def curl(self, method: str, url: str, body: str) -> str:
        """Return a curl command with the cookies of an admin. A long URL or body is cut off."""
        data = f" --data-raw {quote(body[:2000])}" if method == "POST" else ""
        where = quote(f"http://localhost:8000{url[:2000]}")
        return f"curl -i -X {method} -b $COOKIES {where}{data}"

    # --- crawling -----------------------------------------------------------------------------

    def crawl(self, *starts: str, inside: tuple[str, ...] = ()) -> dict[str, Page]:
        """Open `starts`, and follow links whose paths begin with one of `inside`.

        The crawler opens two pages of each kind, because they may show rows in different states. It
        follows a link with parameters only if one of the parameters is new, because filters can be
        combined endlessly.

        Returns:
            The pages by URL.
        """
        found: dict[str, Page] = {}
        seen: dict[str, int] = {}
        named: dict[str, set[str]] = {}
        waiting = [*starts]
        while waiting:
            url = waiting.pop(0)
            parts = urlsplit(url)
            shape = shape_of(parts.path)
            names = {name for name, _ in parse_qsl(parts.query, True)}
            known = named.setdefault(shape, set())
            if parts.netloc or not (url in starts or parts.path.startswith(inside)):
                continue
            if names <= known if names else seen.get(shape, 0) >= 2:
                continue
            known |= names
            seen[shape] = seen.get(shape, 0) + (not names)
            response = self.get(url)
            if response.status_code != 200:
                continue
            is_page = response["Content-Type"].startswith("text/html")
            page = Page(url, response.content.decode() if is_page else "")
            found[url] = page
            waiting += [link.partition("#")[0] for link in page.links]
        return found

    # --- wrong requests -----------------------------------------------------------------------

    def try_each(self, cases: Iterable[Case]) -> None:
        """Send `each` cases for each subject, chosen by the seed; send all cases if `each` is 0."""
        subjects: dict[str, list[Case]] = {}
        for case in cases:
            subjects.setdefault(case.subject, []).append(case)
        self.subjects |= subjects.keys()
        for group in subjects.values():
            most = min(self.each or len(group), len(group))
            for case in self.random.sample(group, most):
                body = case.body if isinstance(case.body, str) else encode(case.body)
                self.send(case.method, case.url, body)

    def wrong_ids(self, pages: dict[str, Page]) -> Iterator[Case]:
        """Yield requests for the pages of rows, with senseless ids in their URLs."""
        for shape in sorted({shape for url in pages if (shape := _id_shape(url))}):
            for value in IDS:
                url = shape.replace("{id}", value)
                yield Case(f"GET {shape}", "GET", url)
                yield Case(f"POST {shape}", "POST", url, "post=yes")

    def wrong_parameters(self, pages: dict[str, Page]) -> Iterator[Case]:
        """Yield requests with senseless parameters, one at a time and several at once.

        A request with one senseless parameter keeps the other parameters of its link.
        """
        links: dict[str, dict[str, list[tuple[str, str]]]] = {}
        paths: dict[str, str] = {}
        for url, page in pages.items():
            parts = urlsplit(url)
            shape = shape_of(parts.path)
            paths.setdefault(shape, parts.path)
            known = links.setdefault(shape, {name: [] for name in KNOWN})
            pairs = parse_qsl(parts.query, True)
            for name, _ in pairs:
                known.setdefault(name, [pair for pair in pairs if pair[0] != name])
            if any("_selected_action" in form.choices for form in page.forms):
                known |= {name: [] for name in KNOWN_BY_LISTS if name not in known}
            if parts.path.endswith("/add/"):  # Parameters fill in fields, but not inlines.
                fields = {name for form in page.forms for name, _ in form.fields}
                known |= {name: [] for name in fields if "-" not in name and name not in known}
        for shape, path in sorted(paths.items()):
            known = links[shape]
            for name, others in sorted(known.items()):
                for value in PARAMETERS:
                    query = encode([*others, (name, value)])
                    yield Case(f"{shape}?{name}", "GET", f"{path}?{query}")
            for _ in range(COMBINATIONS):
                several = self.random.sample(sorted(known), 3)
                query = encode([(name, self.random.choice(PARAMETERS)) for name in several])
                yield Case(f"{shape}, several parameters", "GET", f"{path}?{query}")

    def wrong_forms(self, pages: dict[str, Page]) -> Iterator[Case]:
        """Yield wrong requests for each kind of POST form, except the form for signing out."""
        seen = set()
        for page in pages.values():
            for form in page.forms:
                path = shape_of(urlsplit(form.path).path)
                kind = (path, tuple(sorted({n for n, _ in form.fields})))
                if form.method == "post" and "/logout/" not in form.path and kind not in seen:
                    seen.add(kind)
                    yield from self.wrong_form(form)

    def wrong_form(self, form: Form) -> Iterator[Case]:
        """Yield a form with each field wrong, with several fields wrong, and with a wrong body."""
        shape = shape_of(urlsplit(form.path).path)
        for name in dict.fromkeys(name for name, _ in form.fields):
            for fields in self.wrong_fields(form, name):
                body = self.with_button(form, fields)
                yield Case(f"{shape}, field {name}", "POST", form.path, body)
        for _ in range(COMBINATIONS):
            fields = [
                (name, self.random.choice(FIELDS) if self.random.random() < 0.2 else value)
                for name, value in form.fields
            ]
            body = self.with_button(form, fields)
            yield Case(f"{shape}, several fields", "POST", form.path, body)
        for text in BODIES:
            yield Case(f"{shape}, a wrong body", "POST", form.path, text)

    def wrong_fields(self, form: Form, name: str) -> Iterator[list[tuple[str, str]]]:
        """Yield the fields of a form several times: with `name` missing, repeated, and wrong."""
        others = [pair for pair in form.fields if pair[0] != name]
        yield others
        yield [*form.fields, (name, "x"), (name, "1")]
        for value in COUNTS if name.endswith("_FORMS") else FIELDS:
            yield [*others, (name, value)]

    def with_button(self, form: Form, fields: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the fields together with one of the buttons that could send them."""
        return [*fields, *self.random.sample(form.buttons, min(1, len(form.buttons)))]

    def wrong_actions(self, url: str, page: Page) -> Iterator[Case]:
        """Yield every action with every kind of selection."""
        for form in page.forms:
            rows = form.choices.get("_selected_action", [])
            selections = [
                [],
                rows[:1],
                rows[:3],
                [UNKNOWN_ID],
                [*rows[:1], UNKNOWN_ID],
                *([value] for value in ("abc", "", "\0", "\ud800", "9" * 40, "-1", "9" * 5000)),
                [*rows[:1], *rows[:1]],
                ["1"] * 900,
            ]
            more = [
                [("index", "0"), ("select_across", "0")],
                [("index", "abc")],
                [("index", "9" * 30), ("select_across", "9" * 30)],
                [("index", "-5"), ("select_across", "abc")],
                [("action", "x"), ("index", "1")],
                [("post", "yes")],
            ]
            for action in [*form.choices.get("action", []), "nonsense", "\0", "delete_selected"]:
                for chosen in selections:
                    for rest in more:
                        ids = [("_selected_action", row) for row in chosen]
                        body = [("action", action), *ids, *rest]
                        yield Case(f"{url}, action {action}", "POST", url, body)


def shape_of(url: str) -> str:
    """Return the kind of a page: its URL with `ID` in place of ids.

    The id of the words of an email can end with a language, for example `booked.de`.
    """
    return re.sub(r"/([0-9]+|[a-z-]+\.[a-z]{2})/", "/ID/", UUID.sub("ID", url))


def _id_shape(url: str) -> str | None:
    """Return a URL with `{id}` in place of the id of a row; None if the URL has no such id."""
    row = r"(/admin/\w+/\w+/)[^/]+(/(?:change|delete|history|password)/)$"
    shape = re.sub(row, r"\1{id}\2", urlsplit(url).path)
    return shape if "{id}" in shape else None
