"""Rules for the code: layers, services, exceptions, access, translations and migrations."""

import ast
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from django.apps import apps
from django.conf import settings
from django.core.management import call_command

from bookings.apps import ROOMS
from bookit.runtime.startup import BASE_DIR

# The layers from the lowest to the highest. A layer may import the layers before it.
LAYERS = ["bookit", "accounts", "catalog", "bookings", "reviews"]
# These two files combine all apps.
NAMES_THE_APPS = {"bookit/settings.py", "bookit/urls.py"}


def sources(package):
    """Return the files of a package, without its tests and migrations."""
    return [
        path
        for path in sorted((BASE_DIR / package).rglob("*.py"))
        if not {"tests", "migrations", "__pycache__", "conftest.py"} & set(path.parts)
    ]


CODE = [path for package in LAYERS for path in sources(package)]
NAMES = [str(path.relative_to(BASE_DIR)) for path in CODE]


def imported(path):
    """Yield the names of the modules that are imported anywhere in the file `path`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def lint_imports(*arguments):
    """Check import contracts, by default those in pyproject.toml; return exit status and output."""
    run = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache", *arguments],
        cwd=BASE_DIR,
        capture_output=True,
        text=True,
    )
    return run.returncode, run.stdout


def test_modules_of_every_package_are_found():
    assert len(CODE) > 60
    for package in LAYERS:
        assert any(name.startswith(f"{package}/") for name in NAMES)


def test_imports_follow_the_layers():
    status, output = lint_imports()
    assert status == 0, output


@pytest.mark.parametrize(
    ("above", "below"),
    [
        ("reviews", "bookings"),
        ("bookings.services", "bookings.models"),
        ("bookit.api", "bookit.errors"),
    ],
)
def test_an_upward_import_is_found(tmp_path, above, below):
    """Control for the test above: the imports break a contract whose two layers are swapped."""
    path = tmp_path / "importlinter.ini"
    path.write_text(
        "[importlinter]\nroot_packages =\n  bookit\n  bookings\n  reviews\n"
        "[importlinter:contract:1]\nname = swapped\ntype = layers\n"
        f"layers =\n  {below}\n  {above}\n"
    )
    status, output = lint_imports("--config", str(path))
    assert status == 1
    assert f"{above} is not allowed to import {below}" in output


def test_only_the_listed_modules_import_by_name():
    """Import contracts do not see imports by name."""
    names = ("import_module", "import_string", "__import__", "get_model")
    by_name = {
        name for name in NAMES for function, _ in calls(BASE_DIR / name) if function.endswith(names)
    }
    assert by_name == {
        "bookings/apps.py",  # imports its rooms in order
        "bookit/database/constraints.py",  # looks up the model that a foreign key refers to
    }


def names_of_apps(path):
    """Yield the strings in the code of `path` that name a module or a model of an app."""
    pattern = re.compile(rf"({'|'.join(LAYERS[1:])})\.[A-Za-z_]")
    tree = ast.parse(path.read_text())
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and id(node) not in documentation and pattern.match(text):
            yield text


def test_only_settings_and_urls_name_the_apps():
    naming = {
        str(path.relative_to(BASE_DIR)): found
        for path in sources("bookit")
        if (found := list(names_of_apps(path)))
    }
    assert naming.keys() == NAMES_THE_APPS, naming


def test_the_layers_are_the_installed_apps():
    ours = [
        config.label for config in apps.get_app_configs() if Path(config.path).parent == BASE_DIR
    ]
    assert set(ours) == set(LAYERS)
    assert [app for app in settings.INSTALLED_APPS if app in LAYERS] == LAYERS


def test_every_room_of_bookings_is_listed():
    """Otherwise, nobody imports its `models`, `admin`, `home` and `tasks`."""
    found = {path.parent.name for path in (BASE_DIR / "bookings").glob("*/__init__.py")}
    assert found - {"management", "migrations", "tests"} == set(ROOMS)


@pytest.mark.parametrize("package", LAYERS[1:])
def test_every_app_has_the_usual_modules(package):
    names = {path.name for path in (BASE_DIR / package).glob("*.py")}
    assert names >= {
        *("models.py", "services.py", "serializers.py", "viewsets.py", "urls.py", "filters.py"),
        *("admin.py", "apps.py", "__init__.py"),
    }


def calls(path):
    """Yield the name of each function that the file `path` calls, and the call."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_no_code_prints():
    for name in NAMES:
        assert "print" not in {function for function, _ in calls(BASE_DIR / name)}, name


SERVICES = [name for name in NAMES if name.endswith("/services.py")]
# Python's clocks. PostgreSQL's clock (`Now()`) is allowed.
CLOCKS = re.compile(r"(.+\.)?(now|utcnow|today|localdate)|(time\.)?time")
# The dots at the end exclude other packages, such as `rest_framework_simplejwt`.
WEB = ("django.http.", "django.shortcuts.", "rest_framework.", "requests.", "httpx.")


@pytest.mark.parametrize("name", SERVICES)
def test_services_do_not_read_the_clock_or_import_http(name):
    path = BASE_DIR / name
    assert not [function for function, _ in calls(path) if CLOCKS.fullmatch(function)]
    for module in imported(path):
        assert not f"{module}.".startswith(WEB), module


# Services that neither depend on the time nor store it, except in `updated_at`, which they take
# from PostgreSQL's clock.
TIMELESS = {
    "accounts/keys/services.py": {"delete_key", "delete_keys"},
    "accounts/roles/services.py": {"delete_role", "give_roles", "update_role"},
    "accounts/links/services.py": {"enqueue", "sample", "use"},
    "accounts/privacy/services.py": {"export"},
    "accounts/sessions/services.py": {"authenticate"},
    "accounts/services.py": {
        "change_password",
        "hash_new_password",
        "lock_user",
        "rename",
        "replace_password",
        "request_password_reset",
        "request_verification",
        "update_profile",
    },
    "bookings/feeds/services.py": {"booking_file", "calendar_tokens", "own_token", "renew"},
    "bookings/mails/services.py": {
        *("announcements", "enqueue", "enqueue_cancellations", "enqueue_composed"),
        "enqueue_farewell",
    },
    "bookings/phone/services.py": {"customers", "find_customers", "booked_in_call"},
    "bookings/services.py": {"may_override"},
    "bookings/tally/services.py": {"count_events", "totals"},
    "bookings/webhooks/services.py": {
        *("delete_webhook", "forget_responses", "is_delivering", "wake_forgotten"),
    },
    "bookit/idempotency/services.py": {"forget"},
    "catalog/providers/services.py": {"listed", "update_profile"},
    "catalog/services.py": {
        "delete_calendar",
        "delete_service",
        "delete_time_off",
        "lock_calendar",
        "set_opening_hours",
        "update_service",
    },
    "reviews/services.py": {"delete_review"},
}


def services(code):
    """Return the public functions of a services module, without its `check_` functions."""
    return [
        node
        for node in ast.parse(code).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith(("_", "check_"))
    ]


@pytest.mark.parametrize("name", SERVICES)
def test_services_take_only_keyword_arguments(name):
    by_position = [node.name for node in services((BASE_DIR / name).read_text()) if node.args.args]
    assert by_position == []


@pytest.mark.parametrize("name", SERVICES)
def test_services_take_the_time_as_an_argument(name):
    """A service that neither depends on the time nor stores it is in `TIMELESS`."""
    timeless = {
        node.name
        for node in services((BASE_DIR / name).read_text())
        if "at" not in {argument.arg for argument in node.args.kwonlyargs}
    }
    assert timeless == TIMELESS.get(name, set())


def test_services_are_found():
    """Control for the tests above, which would pass if they found no services."""
    assert len(SERVICES) == len({*SERVICES}) >= 9
    found = services("def a(x): ...\nasync def b(*, at): ...\ndef check_c(): ...\ndef _d(): ...")
    assert [node.name for node in found] == ["a", "b"]


def nodes(kind):
    """Yield the place in the code, and the node, for every node of a kind."""
    for name in NAMES:
        for node in ast.walk(ast.parse((BASE_DIR / name).read_text())):
            if isinstance(node, kind):
                yield f"{name}:{node.lineno}", node


def test_no_handler_catches_every_exception():
    """A handler that ends with `raise` is allowed, because it only cleans up."""
    for place, node in nodes(ast.ExceptHandler):
        last = node.body[-1]
        raised_again = isinstance(last, ast.Raise) and last.exc is None
        types = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        caught = {ast.unparse(each) if each else "" for each in types}
        assert raised_again or not caught & {"", "Exception", "BaseException"}, place


def hides_the_translation(function):
    """Return whether a function calls `_` to translate, and also assigns a value to `_`."""
    parts = [*ast.walk(function)]
    in_comprehensions = {
        name
        for part in parts
        if isinstance(part, ast.comprehension)
        for name in ast.walk(part.target)
    }
    stores = any(
        isinstance(part, ast.Name)
        and part.id == "_"
        and isinstance(part.ctx, ast.Store)
        and part not in in_comprehensions
        for part in parts
    )
    translates = any(
        isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id == "_"
        for part in parts
    )
    return stores and translates


def test_no_function_hides_the_translation_of_its_texts():
    """After `local, _, domain = ...`, `_("...")` in the same function would call a string."""
    found = [
        f"{path.relative_to(BASE_DIR)}:{node.lineno}"
        for path in CODE
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and hides_the_translation(node)
    ]
    assert found == []
    wrong = ast.parse("def wrong(text):\n    a, _, b = text.partition('@')\n    return _('x')")
    assert hides_the_translation(wrong.body[0])


def test_no_serializer_shows_all_fields():
    for place, node in nodes(ast.Constant):
        assert node.value != "__all__", place


# The rule for who may do what is written once, as `User.may`, next to `User.keeps`. These
# expressions name a role or a provider for other reasons.
NOT_ABOUT_ACCESS = {
    # A user who becomes a provider gets a calendar.
    ("accounts/services.py", "user.role == User.Role.PROVIDER"),
    # Whether an API key of a provider can have a permission. `User.may` decides whenever the key
    # is used.
    ("accounts/keys/services.py", "own == 'provider'"),
    # What is stored about a user.
    ("catalog/privacy.py", "calendar__provider=user"),
    ("catalog/privacy.py", "provider=user"),
    # The provider of a new calendar, and whether the provider changes.
    ("catalog/services.py", "changes['provider_id'] != calendar.provider_id"),
    ("catalog/services.py", "'provider_id' in changes"),
    ("catalog/services.py", "'provider_id' in fields"),
    ("catalog/services.py", "provider_id is None"),
    ("catalog/services.py", "provider_id == actor.pk"),
    ("catalog/services.py", "provider=provider"),
    # Whether the form of a calendar changes the provider, who is then checked.
    ("catalog/admin.py", "'provider' in self.changed_data"),
    # Whether a provider gets an email, and whether the provider caused the event.
    ("bookings/mails/occasions.py", "self.provider_id is not None"),
    ("bookings/mails/occasions.py", "self.provider_id != self.actor_id"),
    # The parameter of a query, which is null for a user who keeps no calendar (`User.is_keeper`).
    ("bookings/viewsets.py", "provider=provider_id"),
    # Everybody may see the providers, and the provider of a calendar.
    ("catalog/providers/filters.py", "calendar__provider=OuterRef('pk')"),
    ("catalog/providers/serializers.py", "calendar__provider"),
    ("catalog/providers/serializers.py", "calendar__provider=OuterRef('pk')"),
    ("catalog/providers/serializers.py", "provider=OuterRef('pk')"),
    ("catalog/providers/services.py", "calendar__provider=OuterRef('pk')"),
    ("catalog/providers/services.py", "calendar__provider"),
    ("catalog/providers/services.py", "role=User.Role.PROVIDER"),
    ("catalog/filters.py", "calendar__provider"),
    ("bookings/slots/filters.py", "calendar__provider"),
    ("bookings/desk/admin.py", "calendar__provider"),
    # The search for calendars by the name of their provider.
    ("catalog/admin.py", "provider__in=people.values('pk')"),
    # The calendars that the diary shows first.
    ("bookings/diary/views.py", "provider=user"),
    # The requested scope of a list; the rule decides what the list contains.
    ("bookings/viewsets.py", "self.request.query_params.get('scope') == 'provider'"),
    # The column name that is passed to the rule itself.
    ("bookings/models.py", "calendar__provider"),
}


def rules_about_people(path):
    """Yield the expressions in the code of `path` that compare a role or a provider."""
    name = re.compile(r"\b(role|Role|\w*provider(_id)?)\b")
    lookup = re.compile(r"(\w+__)?(role|provider)(_id)?(__\w+)?")
    in_text = re.compile(
        r"\w+__provider(_id)?|.*(\brole\b\s*(=|<>|IN\b|in\b)|provider\w*\.is_active).*", re.DOTALL
    )
    tree = ast.parse(path.read_text())
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and name.search(ast.unparse(node)):
            yield ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("filter", "exclude", "get", "Q")
        ):
            yield from (
                ast.unparse(keyword)
                for keyword in node.keywords
                if keyword.arg and lookup.fullmatch(keyword.arg)
            )
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in documentation
            and in_text.fullmatch(node.value)
        ):
            yield node.value


def test_the_rule_for_who_may_do_what_is_written_once():
    """Ask `User.may`, or add an expression with another purpose to `NOT_ABOUT_ACCESS`."""
    found = {
        (name, expression)
        for name in NAMES
        # Skip the module that contains the rule, and the tools, which store rows of all kinds.
        if name != "accounts/models.py" and not name.startswith("bookit/tools/")
        for expression in rules_about_people(BASE_DIR / name)
    }
    assert found == NOT_ABOUT_ACCESS


def test_rules_about_people_are_found_in_every_form(tmp_path):
    """Control for the test above, which would also pass if the search missed some rules."""
    path = tmp_path / "x.py"
    path.write_text("""
booking.calendar.provider_id == user.pk
user.role in ("provider", "admin")
Booking.objects.filter(calendar__provider=user)
User.objects.filter(role__in=ROLES)
F("calendar__provider_id")
SQL = "SELECT 1 FROM accounts_user AS provider WHERE provider.is_active"
MORE = f"... AND {alias}.role = 'admin'"
""")
    assert set(rules_about_people(path)) == {
        "booking.calendar.provider_id == user.pk",
        "user.role in ('provider', 'admin')",
        "calendar__provider=user",
        "role__in=ROLES",
        "calendar__provider_id",
        "SELECT 1 FROM accounts_user AS provider WHERE provider.is_active",
        ".role = 'admin'",
    }


@pytest.mark.django_db
def test_migrations_and_models_agree():
    output = StringIO()
    try:
        call_command("makemigrations", check=True, dry_run=True, stdout=output)
    except SystemExit:
        pytest.fail(output.getvalue())


@pytest.mark.django_db
def test_migrations_can_be_undone():
    """Every operation is reversible. An irreversible operation would stop a rollback half-way."""
    from django.db import connection
    from django.db.migrations.loader import MigrationLoader

    loader = MigrationLoader(connection)
    # Apps in folders of `bookit`, such as `bookit.jobs`, have migrations too.
    ours = {
        config.label for config in apps.get_app_configs() if config.name.partition(".")[0] in LAYERS
    }
    for (app, name), migration in loader.disk_migrations.items():
        if app in ours:
            for operation in migration.operations:
                assert operation.reversible, f"{app} {name}: {operation.describe()}"
