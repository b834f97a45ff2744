"""The names in the documents exist, their lists are complete, and their examples run."""

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import Enum
from importlib import import_module
from importlib.util import find_spec
from inspect import isclass, isfunction
from pkgutil import walk_packages

import httpx
import pytest
from django.apps import AppConfig, apps
from django.core.management import get_commands
from django.db import connection
from django.urls import Resolver404, resolve
from procrastinate.contrib.django import app as jobs
from standardwebhooks.webhooks import Webhook

import bookit
from accounts.extensions import PERMISSIONS
from accounts.models import User
from bookings.events import REPORTED_TYPES
from bookings.transitions import TRANSITIONS
from bookit.errors.problems import catalogue
from bookit.jobs.queues import WEBHOOKS_AT_A_TIME
from bookit.runtime.startup import BASE_DIR
from bookit.tests.processes import free_port
from bookit.tests.routes import ANY_ID
from catalog.tests.factories import ServiceFactory

DOCUMENTS = {
    str(path.relative_to(BASE_DIR)): path.read_text()
    for pattern in ("README.md", "docs/*.md", ".github/*.md")
    for path in sorted(BASE_DIR.glob(pattern))
}
README = DOCUMENTS["README.md"]
GUIDE, CLIENTS = DOCUMENTS["docs/guide.md"], DOCUMENTS["docs/clients.md"]
OPERATIONS, ARCHITECTURE = DOCUMENTS["docs/operations.md"], DOCUMENTS["docs/architecture.md"]
MIGRATING, CONTRIBUTING = DOCUMENTS["docs/migrating.md"], DOCUMENTS[".github/CONTRIBUTING.md"]
SECURITY = DOCUMENTS["docs/security.md"]
DJANGO_AND_DRF = DOCUMENTS["docs/django-and-drf.md"]

PACKAGES = ("bookit", "accounts", "catalog", "bookings", "reviews")
each_document = pytest.mark.parametrize("name", DOCUMENTS)


def without_code(text):
    """Return a document with spaces in place of its code blocks, so that no position changes."""
    return re.sub(r"^```.*?^```$", lambda match: " " * len(match[0]), text, flags=re.M | re.S)


def section(text, title):
    """Return a section of a document, with the sections inside it."""
    bare = without_code(text)
    found = re.search(rf"^(#+) {re.escape(title)}\n", bare, re.MULTILINE)
    end = re.compile(rf"^#{{1,{len(found[1])}}} ", re.MULTILINE).search(bare, found.end())
    return text[found.end() : end.start() if end else None]


def rows(text):
    """Return the cells of each row of the tables in a text, without the header rows."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    separators = {number for number, line in enumerate(lines) if set(line) <= set("|- ")}
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for number, line in enumerate(lines)
        if not {number, number + 1} & separators
    ]


def quoted(text):
    """Return the parts of a text that are between backticks."""
    return re.findall(r"`([^`\n]+)`", text)


def blocks(text, language):
    """Return the code blocks of a text that are in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


# --- the names exist --------------------------------------------------------------------------


def missing_paths(text):
    """Return the files and folders that a text names and that do not exist in the repository."""
    roots = "|".join([*PACKAGES, "docs", r"\.ci", r"\.github"])
    named = set(re.findall(rf"(?<![\w/.<>{{-])(?:{roots})/[\w./-]*", text))
    missing = {path for path in named if not (BASE_DIR / path.rstrip(".")).exists()}
    # A name without a folder is a file at the top level, or stands for all modules of that name.
    for name in quoted(text):
        if re.fullmatch(r"\.?[\w-]+\.(py|toml|yaml|md|txt|example)", name) and not (
            (BASE_DIR / name).exists() or any(BASE_DIR.glob(f"*/{name}"))
        ):
            missing.add(name)
    return missing


@each_document
def test_the_paths_in_a_document_exist(name):
    assert missing_paths(DOCUMENTS[name]) == set()


def exists(name):
    """Return whether a dotted name is a job, model, module or attribute, or in a trigger's SQL."""
    module, _, attribute = name.rpartition(".")
    if name in jobs.tasks or attribute.lower() in apps.all_models.get(module, {}):
        return True
    if find_spec(module):
        parent = import_module(module)
        if hasattr(parent, attribute) or (hasattr(parent, "__path__") and find_spec(name)):
            return True
    return any(f"'{name}'" in path.read_text() for path in BASE_DIR.glob("*/triggers.py"))


def missing_names(text):
    """Return the dotted names in BookIt's packages that a text names and that do not exist."""
    pattern = rf"(?<![\w./'-])(?:{'|'.join(PACKAGES)})(?:\.\w+)+(?![\w/])"
    files = r"\.(py|toml|yaml|md|example|git)$"
    named = {found for found in re.findall(pattern, text) if not re.search(files, found)}
    named -= PERMISSIONS.keys()
    return {found for found in named if not exists(found) and "example.com" not in found}


@each_document
def test_the_dotted_names_in_a_document_exist(name):
    jobs.perform_import_paths()
    assert missing_names(DOCUMENTS[name]) == set()


def missing_commands(text):
    """Return the commands that a text names and that do not exist."""
    commands = set(re.findall(r"manage\.py ([a-z_]+)", text))
    modules = set(re.findall(r"python -m\s+([\w.]+)", text))
    return {found for found in commands if found not in get_commands()} | {
        found for found in modules if not find_spec(found)
    }


@each_document
def test_the_commands_in_a_document_exist(name):
    assert missing_commands(DOCUMENTS[name]) == set()


def missing_endpoints(text):
    """Return the endpoints that a text names and that do not exist."""
    missing = set()
    for method, path in re.findall(r"\b(GET|POST|PATCH|PUT|DELETE) (/[^\s`|?,)]*)", text):
        try:
            view = resolve(re.sub(r"\{[^}]*\}", ANY_ID, path.rstrip(".:;"))).func
        except Resolver404:
            missing.add(f"{method} {path}")
            continue
        if method.lower() not in getattr(view, "actions", {"get": ""}):
            missing.add(f"{method} {path}")
    return missing


@each_document
def test_the_endpoints_in_a_document_exist(name):
    text = DOCUMENTS[name]
    if name == "docs/migrating.md":
        # The first column names endpoints of other APIs.
        text = "\n".join(row[1] for row in rows(text))
    assert missing_endpoints(text) == set()


def anchors(text):
    """Return the anchors of a document's titles, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", without_code(text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(name, text):
    """Return the links of a document whose target in the repository does not exist."""
    broken = set()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (BASE_DIR / name).parent / path if path else BASE_DIR / name
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            broken.add(target)
    return broken


@each_document
def test_the_links_of_a_document_have_a_target(name):
    assert broken_links(name, DOCUMENTS[name]) == set()


def test_missing_names_are_found():
    """Control for the tests above, which would also pass if the searches found nothing."""
    assert missing_paths("`bookings/tests/test_races.py`, `compose.yaml`, `urls.py`") == set()
    assert missing_paths("`bookings/webhooks.py`, `settings.yaml`") == {
        "bookings/webhooks.py",
        "settings.yaml",
    }
    assert missing_names("bookit.runtime.gunicorn, bookings.Webhook, bookit.follow_up") == set()
    assert missing_names("bookit.gunicorn and bookings.Nothing") == {
        "bookit.gunicorn",
        "bookings.Nothing",
    }
    assert missing_commands("manage.py serve, python -m bookit.tests.chaos") == set()
    assert missing_commands("manage.py start, python -m bookit.chaos") == {"start", "bookit.chaos"}
    assert missing_endpoints("`GET /bookings/{id}.ics`, `POST /slots`, `GET /health`") == set()
    assert missing_endpoints("`PUT /me`, `GET /classes`") == {"PUT /me", "GET /classes"}
    good = "[a](#two-commands) [b](docs/guide.md#a-tour) [c](https://example.com)"
    assert broken_links("README.md", good) == set()
    bad = "[a](#three-commands) [b](docs/guide.md#a-detour) [c](docs/nothing.md)"
    assert len(broken_links("README.md", bad)) == 3


def unknown_identifiers(row):
    """Return the identifiers in a row that no file in the first cell of the row contains."""
    files = [BASE_DIR / name for name in quoted(row[0]) if (BASE_DIR / name).is_file()]
    sources = "\n".join(path.read_text() for path in files)
    identifiers = {
        name
        for name in quoted(row[1])
        if re.fullmatch(r"[A-Za-z_][\w.]*", name) and not name.endswith(".py")
    }
    others = {"PATCH"}  # Not a name in Python.
    return {
        name
        for name in identifiers - others
        if files and not re.search(rf"\b{name.rpartition('.')[2]}\b", sources)
    }


def test_the_files_to_touch_contain_the_listed_names():
    lists = rows(section(CONTRIBUTING, "Which files to touch"))
    assert len(lists) > 40
    found = {name: row[0] for row in lists for name in unknown_identifiers(row)}
    assert found == {}
    assert unknown_identifiers(["`bookings/services.py`", "`TRANSITIONS`, `UNKNOWN`"]) == {
        "UNKNOWN"
    }


def modules_that_name(column):
    """Return the modules that name a column, without tests and migrations."""
    return {
        str(path.relative_to(BASE_DIR))
        for package in PACKAGES
        for path in (BASE_DIR / package).rglob("*.py")
        if not {"tests", "migrations"} & {*path.parts}
        and re.search(rf"\b{column}\b", path.read_text())
    }


def test_the_list_for_a_new_column_is_complete():
    lists = rows(section(CONTRIBUTING, "A column of a booking"))
    listed = {name for row in lists for name in quoted(row[0])}
    named = modules_that_name("attendee_name")
    assert {"bookings/seats.py", "bookings/mails/occasions.py"} <= named
    assert named - listed == set()


# --- the lists are complete -------------------------------------------------------------------


def test_the_readme_is_short_and_links_to_its_sections_and_to_every_document():
    assert len(README.splitlines()) <= 200
    for title in re.findall(r"^## (.*)$", README, re.MULTILINE):
        assert f"[{title}](#" in README, title
    for name in DOCUMENTS.keys() - {"README.md"}:
        assert f"]({name})" in README, name


def test_every_setting_is_listed():
    example = (BASE_DIR / ".env.example").read_text()
    # Only compose.yaml sets COMPOSE_PROXIES.
    explained = set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE)) - {"COMPOSE_PROXIES"}
    listed = {name for row in rows(section(OPERATIONS, "Settings")) for name in quoted(row[0])}
    assert listed == explained


def test_every_command_is_listed():
    listed = {
        name.split()[0] for row in rows(section(OPERATIONS, "Commands")) for name in quoted(row[0])
    }
    # BookIt's own commands include its versions of `migrate` and `procrastinate`.
    own = {name for name, package in get_commands().items() if package.startswith(PACKAGES)}
    assert listed == own | {"createsuperuser"}


def test_every_permission_is_listed():
    listed = {
        quoted(name)[0]: (words, {*given.split(" and ")} - {""})
        for name, words, _, given in rows(section(CLIENTS, "Staff roles"))
    }
    assert listed == {
        name: (each.words, {kind for kind in ("roles", "keys") if getattr(each, f"in_{kind}")})
        for name, each in PERMISSIONS.items()
    }


def test_each_documented_installation_collects_the_static_files():
    """Otherwise, browsers would get the scripts and styles of another version."""
    installing = [each for each in blocks(OPERATIONS, "sh") if "-r requirements.txt" in each]
    assert len(installing) == 3
    for commands in installing:
        assert "manage.py collectstatic --noinput" in commands.split("requirements.txt")[1]


def test_every_error_is_listed():
    listed = {
        code
        for title in ("Errors", "How to read a 409")
        for row in rows(section(CLIENTS, title))
        for cell in row[:2]
        for code in quoted(cell)
        if code in catalogue()
    }
    assert listed == set(catalogue())


def test_every_event_is_listed():
    introduction = section(CLIENTS, "Webhooks").split(". An admin")[0]
    assert set(quoted(introduction)) == {str(kind) for kind in REPORTED_TYPES}


def test_every_change_of_state_is_listed():
    listed = {
        before: set(quoted(row[1]))
        for row in rows(section(GUIDE, "States of a booking"))
        for before in quoted(row[0])
    }
    assert listed == {
        str(state): {str(after) for after in follow} for state, follow in TRANSITIONS.items()
    }


def test_the_number_of_webhooks_at_a_time_matches_the_code():
    limit = f"serves up to {WEBHOOKS_AT_A_TIME} "
    assert limit in OPERATIONS
    assert limit in ARCHITECTURE
    assert limit in (BASE_DIR / ".env.example").read_text()


@pytest.mark.django_db
def test_the_named_constraints_and_triggers_exist():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT conname FROM pg_constraint UNION SELECT relname FROM pg_class"
            " UNION SELECT tgname FROM pg_trigger UNION SELECT proname FROM pg_proc"
        )
        known = {name for (name,) in cursor.fetchall()}
    refused = [
        name
        for row in rows(section(ARCHITECTURE, "What the database refuses"))
        for name in quoted(row[1])
    ]
    functions = [name for row in rows(section(ARCHITECTURE, "Triggers")) for name in quoted(row[0])]
    assert len(refused) > 15
    assert {*refused, *functions} <= known
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT proname FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid"
            " WHERE NOT tgisinternal AND proname NOT LIKE 'procrastinate%'"
        )
        assert {name for (name,) in cursor.fetchall()} == set(functions)


@pytest.mark.django_db
def test_the_constraints_of_the_guarantee_match_the_database():
    shown = re.findall(r"ADD CONSTRAINT (\w+)\n(EXCLUDE [^;]*);", section(README, "The guarantee"))
    assert len(shown) == 3
    for name, definition in shown:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %s", [name]
            )
            [[stored]] = cursor.fetchall()
        plain = re.sub(r"::text|[() ]", "", stored)
        assert plain == re.sub(r"[() ]", "", definition)


@pytest.mark.parametrize(
    ("introduction", "contract"),
    [
        (
            "The packages, from top to bottom:",
            "An app imports only the apps below it, and nothing imports the tools",
        ),
        ("Inside `bookit`:", "A package of bookit imports only the packages below it"),
        ("Inside `bookings`:", "A package of bookings imports only the packages below it"),
    ],
)
def test_the_lists_of_layers_match_the_import_contracts(introduction, contract):
    project = tomllib.loads((BASE_DIR / "pyproject.toml").read_text())
    [layers] = [
        each["layers"]
        for each in project["tool"]["importlinter"]["contracts"]
        if each["name"] == contract
    ]
    shown = ARCHITECTURE.split(introduction)[1].split("```text\n")[1].split("```")[0]
    assert [re.split(r"\s{2,}", line)[0] for line in shown.splitlines()] == layers


def test_every_extension_point_is_listed():
    listed = {
        quoted(row[0])[0]: quoted(row[0])[1]
        for row in rows(section(ARCHITECTURE, "Extension points"))
    }
    declared = {
        name: str(path.relative_to(BASE_DIR))
        for package in PACKAGES
        for path in (BASE_DIR / package).rglob("*.py")
        if "tests" not in path.parts
        for name in re.findall(r"^([A-Z_]+): Extensions\[", path.read_text(), re.MULTILINE)
    }
    assert listed == declared
    added = {
        (name, str(path.relative_to(BASE_DIR)))
        for package in PACKAGES
        for path in (BASE_DIR / package).rglob("*.py")
        if "tests" not in path.parts
        for name in re.findall(r"^\s*@?([A-Z_]+)\.add\(", path.read_text(), re.MULTILINE)
        if path.name != "extensions.py"  # An example in a docstring.
    }
    assert added == {
        (quoted(row[0])[0], file)
        for row in rows(section(ARCHITECTURE, "Extension points"))
        for file in quoted(row[2])
    }


FRAMEWORKS = (
    "django",
    "django_filters",
    "drf_spectacular",
    "gunicorn",
    "procrastinate",
    "psycopg",
    "rest_framework",
    "whitenoise",
)


def overrides():
    """Return the dotted names of the classes of `bookit` that override a method of a framework."""
    found = set()
    for module in walk_packages(bookit.__path__, "bookit."):
        # Skip modules that serve no requests. Skip `wsgi` and `gunicorn`, because importing them
        # prepares this process for serving requests.
        if re.search(
            r"\.(tests|tools|management|migrations|conftest|wsgi|gunicorn)\b", module.name
        ):
            continue
        for each in vars(import_module(module.name)).values():
            if not isclass(each) or each.__module__ != module.name:
                continue
            # Overriding `ready` is the usual use of an AppConfig, and Python adds functions of its
            # own to each enumeration.
            if issubclass(each, AppConfig | Enum):
                continue
            theirs = [base for base in each.__mro__ if base.__module__.startswith(FRAMEWORKS)]
            if any(
                isfunction(value) and not name.startswith("__") and hasattr(base, name)
                for name, value in vars(each).items()
                for base in theirs
            ):
                found.add(f"{each.__module__}.{each.__name__}")
    return found


def test_every_override_of_a_framework_is_listed():
    found = overrides()
    assert {"bookit.api.views.RowViewSet", "bookit.runtime.worker.Worker"} <= found
    # The document lists the subclasses of this class instead.
    found -= {"bookit.database.constraints._DatabaseConstraint"}
    assert found - {*quoted(DJANGO_AND_DRF)} == set()


def test_the_tests_of_the_overrides_exist():
    named = {name for name in quoted(DJANGO_AND_DRF) if name.startswith("test_")}
    tests = "\n".join(path.read_text() for path in BASE_DIR.glob("bookit/**/tests/test_*.py"))
    assert {name for name in named if f"def {name}(" not in tests} == set()
    assert len(named) > 1


TEST = re.compile(r"([\w./-]+\.py)::(\w+)")


def missing_tests(text):
    """Return the tests that a text names as `file::test` and that do not exist."""
    return {
        f"{file}::{name}"
        for file, name in TEST.findall(text)
        if not (BASE_DIR / file).is_file()
        or not re.search(rf"^ *def {name}\(", (BASE_DIR / file).read_text(), re.MULTILINE)
    }


@each_document
def test_the_tests_in_a_document_exist(name):
    assert missing_tests(DOCUMENTS[name]) == set()


def test_each_point_of_the_owasp_list_names_its_tests():
    points = section(SECURITY, "OWASP API Security Top 10")
    for number in range(1, 11):
        [title] = re.findall(rf"^### (API{number}: .*)$", points, re.MULTILINE)
        assert len(TEST.findall(section(points, title))) >= 4, title


def test_missing_tests_are_found():
    """Control for `test_the_tests_in_a_document_exist`: `missing_tests` finds wrong names."""
    here = "bookit/tests/test_documents.py"
    wrong = {f"{here}::test_nothing", "bookit/tests/test_none.py::test_it"}
    assert missing_tests(f"`{here}::test_missing_tests_are_found`, {', '.join(wrong)}") == wrong


# --- the examples run -------------------------------------------------------------------------


@pytest.fixture
def town(live_server, transactional_db):
    """Return a server with the user and the service that the examples use."""
    User.objects.create_user("ana@example.com", "Ana", "morning-by-the-sea")
    ServiceFactory(title="Classic Haircut")
    return live_server


def run(command, code, town, suffix, folder):
    """Run an example against a server."""
    file = folder / f"example{suffix}"
    assert "http://localhost:8000" in code
    file.write_text(code.replace("http://localhost:8000", town.url))
    return subprocess.run([command, file], capture_output=True, text=True, timeout=60)


def test_the_python_client_works(town, tmp_path):
    [code] = blocks(section(CLIENTS, "A client in Python"), "python")
    done = run(sys.executable, code, town, ".py", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="Node.js is not installed")
def test_the_javascript_client_works(town, tmp_path):
    [code] = blocks(section(CLIENTS, "A client in JavaScript"), "js")
    done = run(NODE, code, town, ".mjs", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"booked \S+ and \S+\n", done.stdout)


SECRET = "whsec_Tk90IGEgc2VjcmV0LCBidXQgYW4gZXhhbXBsZSE="


@contextmanager
def receiving(folder):
    """Run the documented webhook receiver, and yield its URL and its process."""
    [code] = blocks(section(CLIENTS, "Webhooks"), "python")
    port = free_port()
    assert "9000" in code
    file = folder / "receiver.py"
    file.write_text(code.replace("9000", str(port)))
    process = subprocess.Popen(
        [sys.executable, file],
        env={**os.environ, "WEBHOOK_SECRET": SECRET},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield f"http://localhost:{port}", process
    finally:
        process.kill()
        process.wait()


def post(url, content, **headers):
    """Send a message as soon as the receiver listens."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return httpx.post(url, content=content, headers=headers)
        except httpx.ConnectError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_the_webhook_receiver_handles_each_signed_message_once(tmp_path):
    at = datetime.now(UTC)
    content = (
        '{"type": "booking.created", "timestamp": "2026-12-01T10:00:00Z", "data": {"id": "7"}}'
    )
    signed = {
        "webhook-id": "msg-1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("msg-1", at, content),
    }
    with receiving(tmp_path) as (url, process):
        assert post(url, content, **signed).status_code == 204
        assert post(url, content, **signed).status_code == 204
        assert post(url, content.replace("7", "8"), **signed).status_code == 400
        process.terminate()
        assert process.stdout.read() == "booking.created {'id': '7'}\n"


def test_every_python_and_javascript_example_is_run():
    """The documents contain only the three examples that the tests above run."""
    others = {name: blocks(text, "(?:python|py|js|javascript)") for name, text in DOCUMENTS.items()}
    assert len(others.pop("docs/clients.md")) == 3
    assert not any(others.values())


def test_the_tour_of_ci_finds_the_shell_examples():
    """The examples of the tour and the guide need the demo town, so `.ci/tour` runs them."""
    tour = (BASE_DIR / ".ci" / "tour").read_text()
    assert "blocks <docs/guide.md" in tour
    assert re.search(r"on = /curl/.*README\.md", tour)
    assert len(blocks(section(README, "Ten lines of curl"), "sh")) == 1
    assert len(blocks(GUIDE, "sh")) == 6
