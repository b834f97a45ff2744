"""The packages that programs import at their start, and the commands that need a database."""

import os
import subprocess
import sys

import pytest

from bookit.runtime.startup import BASE_DIR, UNUSED, _hidden
from manage import needs_database

UNREACHABLE = {"DATABASE_URL": "postgresql://user:secret@127.0.0.1:1/none"}

LOADED = """
import sys
import bookit.wsgi
print(*sys.modules)
"""


def test_a_web_process_imports_no_package_that_only_other_programs_use():
    result = subprocess.run(
        [sys.executable, "-c", LOADED],
        cwd=BASE_DIR,
        env={**os.environ, **UNREACHABLE},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {*result.stdout.split()}
    assert {"django", "rest_framework", "bookings"} <= loaded
    others = {"bookit.runtime.embedded_postgres", "httpx", "playwright", "polib", "psutil"}
    assert not loaded & {*UNUSED, *others, "pytest"}


# Opening a template's file fails, so only templates that are loaded already can be used.
TEMPLATES = """
from pathlib import Path
%s
from django.template.loader import get_template
from django.template.loaders.filesystem import Loader

def open_file(loader, origin):
    raise AssertionError(origin.name)

Loader.get_contents = open_file
names = [str(file).split("/templates/")[1] for file in Path(".").glob("*/templates/**/*.*")]
for name in names:
    get_template(name)
print(len(names), *names)
"""


WEB = "import bookit.wsgi"
WORKER = """
import django
django.setup()
from procrastinate.contrib.django.management.commands import procrastinate
from bookit.management.commands.procrastinate import Command

procrastinate.Command.handle = lambda *arguments, **options: None  # which would run jobs
Command().handle(command="worker")
"""


@pytest.mark.parametrize("start", [WEB, WORKER], ids=["web", "worker"])
def test_a_process_loads_templates_before_an_upgrade_can_replace_their_files(start):
    result = subprocess.run(
        [sys.executable, "-c", TEMPLATES % start],
        cwd=BASE_DIR,
        env={**os.environ, **UNREACHABLE},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    number, *names = result.stdout.split()
    assert int(number) == len(names) > 50
    assert {"admin/base_site.html", "bookings/diary.html", "bookit/mail.txt"} <= {*names}


def test_a_hidden_package_can_be_imported_later(monkeypatch):
    # `wave` is a module of Python's library that BookIt does not use.
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    with _hidden(["wave"]):
        try:
            import wave
        except ImportError:
            wave = None
        assert wave is None
    import wave

    assert wave.open


def test_a_package_that_was_imported_before_is_not_hidden():
    with _hidden(["os"]):
        import os as again
    assert again is os


@pytest.mark.parametrize(
    ("command", "is_needed"),
    [
        ("", False),
        ("check", False),
        ("check --deploy --database default", True),
        ("check --database=default", True),
        ("measure_overrides", False),
        ("migrate", True),
        ("migrate --help", False),
        ("procrastinate worker -h", False),
        ("dbshell -- -h localhost", True),
    ],
)
def test_only_commands_that_use_the_database_need_a_database(command, is_needed):
    assert needs_database(command.split()) == is_needed


def test_procrastinate_explains_its_options_without_a_database():
    result = subprocess.run(
        [sys.executable, "manage.py", "procrastinate", "--help"],
        cwd=BASE_DIR,
        env={**os.environ, **UNREACHABLE},
        capture_output=True,
        text=True,
    )
    assert result.stdout.startswith("usage: manage.py procrastinate"), result.stderr
