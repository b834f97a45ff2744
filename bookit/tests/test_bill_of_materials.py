"""What `.ci/sbom.py` adds to the bill of materials, and which licences it refuses."""

import importlib.util
import json
import sysconfig
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from bookit.runtime.startup import BASE_DIR

spec = importlib.util.spec_from_file_location("sbom", BASE_DIR / ".ci" / "sbom.py")
assert spec
assert spec.loader
sbom = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sbom)

SITE_PACKAGES = Path(sysconfig.get_path("purelib"))


def bill(*names, **nested):
    """Return a bill of materials with the packages `names`.

    Args:
        nested: for some packages, the licences of a component inside the package.
    """
    packages = [{"type": "library", "name": name, "version": "1"} for name in names]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "metadata": {"component": {"type": "application", "name": "bookit"}},
        "components": packages,
    }
    sbom.add_bundled(
        document,
        [
            (name, {"type": "library", "name": "part", "version": "2", "licenses": stated})
            for name, stated in nested.items()
        ],
    )
    return document


def test_the_bill_names_what_packages_contain():
    """The versions come from installed files, so this test fails if a file changes its format."""
    # This environment also has development packages. Their components do not count.
    lines = (BASE_DIR / "requirements.txt").read_text().splitlines()
    production = {sbom._plain(line.partition("==")[0]) for line in lines}
    production.add("")  # BookIt itself
    found = [each for each in sbom.bundled(SITE_PACKAGES) if sbom._plain(each[0]) in production]
    names = {component["name"] for _, component in found}
    assert {"swagger-ui-dist", "redoc", "jquery", "select2", "xregexp", "postgresql"} <= names
    # Wheels list their Rust crates. Crates that only built the wheel are left out.
    assert "pyo3" in names
    assert "pyo3-build-config" not in names
    document = bill(*{package for package, _ in found if package})
    sbom.add_bundled(document, found)
    own = document["metadata"]["component"]["components"]
    assert [each["purl"].rpartition("@")[0] for each in own] == ["pkg:npm/%40event-calendar/build"]
    parts = sum(len(each["components"]) for each in document["components"])
    assert len(own) + parts == len(found)
    # CI validates the whole bill. Validating a dozen components takes a second, so this test
    # validates only one package.
    [package] = [each for each in document["components"] if "sidecar" in each["name"]]
    small = {**document, "components": [package]}
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(small)) is None
    assert sbom.refused(document, sbom.allowed_licenses()) == []


def test_a_bundled_file_without_a_version_is_reported(tmp_path, monkeypatch):
    (tmp_path / "jquery.js").write_text("no version")
    wrong = sbom.Bundled("Django", "pkg:npm/jquery", "MIT", "jquery.js", r"v([\d.]+)")
    monkeypatch.setattr(sbom, "BUNDLED", [wrong])
    with pytest.raises(SystemExit, match=r"No version found in jquery\.js"):
        [*sbom.bundled(tmp_path)]


@pytest.mark.parametrize(
    ("expression", "is_allowed"),
    [
        ("MIT", True),
        ("GPL-3.0-only OR MIT", True),
        ("MIT AND BSD-3-Clause", True),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", True),
        ("GPL-3.0-only", False),
        ("MIT AND AGPL-3.0-only", False),
        ("MIT-unheard-of", False),
    ],
)
def test_a_license_that_is_not_allowed_is_refused(expression, is_allowed):
    document = bill("orjson", "django", orjson=[{"expression": expression}])
    refused = sbom.refused(document, sbom.allowed_licenses())
    assert refused == ([] if is_allowed else [f"part 2 in orjson: ({expression})"])


def test_a_license_without_an_expression_is_checked_too():
    stated = [{"license": {"id": "MIT"}}, {"license": {"id": "GPL-2.0-only"}}]
    assert sbom.refused(bill("orjson", orjson=stated), {"MIT"}) != []
    assert sbom.refused(bill("orjson", orjson=stated[:1]), {"MIT"}) == []
