"""Clients that are generated from the OpenAPI document can register, book and review."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from rest_framework_simplejwt.tokens import AccessToken

from accounts.tests.factories import AdminFactory
from bookit.web import pages
from catalog.tests.factories import ServiceFactory

SCRIPTS = Path(__file__).parent / "clients"
NPM = shutil.which("npm")
# The files of this folder pin the packages that generate, compile and run a TypeScript client.
PACKAGES = settings.BASE_DIR / ".ci" / "clients"


def run(*command, folder, **environment):
    """Run a program, and check that it succeeds."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def document(tmp_path):
    path = tmp_path / "openapi.json"
    path.write_bytes(pages.schema())
    return path


@pytest.fixture
def arguments(transactional_db, live_server):
    """Return the arguments of the scripts: a URL, the id of a service, and an admin's token."""
    service = ServiceFactory(requires_confirmation=False)
    return live_server.url, service.pk, AccessToken.for_user(AdminFactory())


def test_a_python_client_can_register_book_and_review(document, arguments, tmp_path):
    options = tmp_path / "options.json"  # The generator reads YAML, which includes JSON.
    options.write_text(json.dumps({"post_hooks": []}))  # Do not format the generated code.
    run(
        *(Path(sys.executable).with_name("openapi-python-client"), "generate"),
        *("--path", document, "--config", options, "--meta", "none", "--fail-on-warning"),
        *("--output-path", tmp_path / "bookit_client"),
        folder=tmp_path,
    )
    script = (sys.executable, SCRIPTS / "book.py", *arguments)
    run(*script, folder=tmp_path, PYTHONPATH=str(tmp_path))


@pytest.fixture(scope="session")
def packages(tmp_path_factory):
    """Install the packages unless the pinned versions are installed, and return their folder."""
    installed = PACKAGES / "node_modules" / ".package-lock.json"
    lock = PACKAGES / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        run(
            *(NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"),
            folder=PACKAGES,
        )
        installed.touch()
    return PACKAGES / "node_modules"


@pytest.mark.skipif(NPM is None, reason="npm is not installed")
def test_a_typescript_client_can_register_book_and_review(document, arguments, packages, tmp_path):
    (tmp_path / "node_modules").symlink_to(packages)
    (tmp_path / "package.json").write_text('{"type": "commonjs"}')
    for name in ("book.ts", "tsconfig.json"):
        shutil.copy(SCRIPTS / name, tmp_path)
    programs = packages / ".bin"
    # Without this option, the types of request bodies require properties that have a default.
    run(
        *(programs / "openapi-typescript", document, "--output", "schema.ts"),
        "--default-non-nullable=false",
        folder=tmp_path,
    )
    run(programs / "tsc", folder=tmp_path)
    run("node", tmp_path / "book.js", *arguments, folder=tmp_path)
