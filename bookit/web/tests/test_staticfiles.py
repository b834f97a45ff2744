"""Pages open even if `collectstatic` has not run, or has not collected all files."""

import json
import re

import pytest
from django.core.management import call_command
from django.test import Client

PAGES = ["/docs", "/redoc", "/admin/login/"]


@pytest.fixture
def production(settings, tmp_path):
    """Settings for static files as in production, with an empty folder to collect them into."""
    settings.STATIC_ROOT = tmp_path / "static"
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "bookit.web.staticfiles.CollectedFilesStorage"},
    }
    return settings


def files_of(client, path):
    """Return the addresses of the scripts, styles and pictures of a page, which must all open."""
    answer = client.get(path)
    assert answer.status_code == 200
    found = re.findall(r"(?:src|href)=\"(/static/[^\"]*)\"", answer.content.decode())
    assert found
    for address in found:
        assert client.get(address).status_code == 200, address
    return found


@pytest.mark.django_db
@pytest.mark.parametrize("path", PAGES)
def test_a_page_opens_without_collectstatic(production, path):
    files_of(Client(), path)


@pytest.mark.django_db
def test_collected_files_have_hashes_in_their_names_and_are_compressed(production):
    call_command("collectstatic", interactive=False, verbosity=0)
    client = Client()
    for path in PAGES:
        for address in files_of(client, path):
            assert re.search(r"\.[0-9a-f]{12}\.\w+$", address), address
            answer = client.get(address, headers={"accept-encoding": "gzip"})
            assert "immutable" in answer["Cache-Control"]
            if address.endswith((".css", ".js")):
                assert answer["Content-Encoding"] == "gzip"


@pytest.mark.django_db
def test_a_new_file_of_an_upgrade_is_served_before_it_is_collected(production):
    call_command("collectstatic", interactive=False, verbosity=0)
    manifest = production.STATIC_ROOT / "staticfiles.json"
    content = json.loads(manifest.read_text())
    del content["paths"]["admin/css/login.css"]
    manifest.write_text(json.dumps(content))
    production.STATIC_ROOT = production.STATIC_ROOT  # Read the manifest again, as a restart would.
    assert "/static/admin/css/login.css" in files_of(Client(), "/admin/login/")
