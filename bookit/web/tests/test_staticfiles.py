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


def check_files_of_page(client, path):
    """Check that a page and its scripts, styles and pictures open. Return the URLs of the files."""
    response = client.get(path)
    assert response.status_code == 200
    found = re.findall(r"(?:src|href)=\"(/static/[^\"]*)\"", response.content.decode())
    assert found
    for url in found:
        assert client.get(url).status_code == 200, url
    return found


@pytest.mark.django_db
@pytest.mark.parametrize("path", PAGES)
def test_a_page_opens_without_collectstatic(production, path):
    check_files_of_page(Client(), path)


@pytest.mark.django_db
def test_collected_files_have_hashes_in_their_names_and_are_compressed(production):
    call_command("collectstatic", interactive=False, verbosity=0)
    client = Client()
    for path in PAGES:
        for url in check_files_of_page(client, path):
            assert re.search(r"\.[0-9a-f]{12}\.\w+$", url), url
            response = client.get(url, headers={"accept-encoding": "gzip"})
            assert "immutable" in response["Cache-Control"]
            if url.endswith((".css", ".js")):
                assert response["Content-Encoding"] == "gzip"


@pytest.mark.django_db
def test_a_new_file_is_served_before_it_is_collected(production):
    call_command("collectstatic", interactive=False, verbosity=0)
    manifest = production.STATIC_ROOT / "staticfiles.json"
    content = json.loads(manifest.read_text())
    del content["paths"]["admin/css/login.css"]
    manifest.write_text(json.dumps(content))
    for collected in (production.STATIC_ROOT / "admin/css").glob("login.*"):
        collected.unlink()
    production.STATIC_ROOT = production.STATIC_ROOT  # Read the manifest again, as a restart would.
    assert "/static/admin/css/login.css" in check_files_of_page(Client(), "/admin/login/")
