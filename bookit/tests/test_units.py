"""The systemd units in docs/operations.md are valid; two of them run the documented commands."""

import configparser
import re
import shutil
import subprocess

import pytest
from django.conf import settings

from bookit.runtime import gunicorn
from bookit.runtime.startup import BASE_DIR

OPERATIONS = (BASE_DIR / "docs" / "operations.md").read_text()
UNITS = dict(
    re.findall(r"`/etc/systemd/system/([\w.-]+)`[^`]*```ini\n(.*?)```", OPERATIONS, re.DOTALL)
)
CLONE = "/srv/bookit"


def parsed(name):
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read_string(UNITS[name])
    return unit


def test_the_units_are_found():
    assert UNITS.keys() == {
        "bookit-web.service",
        "bookit-worker.service",
        "bookit-backup.service",
        "bookit-backup.timer",
    }


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd is not installed (Debian: apt install systemd)",
)
def test_systemd_accepts_the_units(tmp_path):
    """systemd also checks that the programs exist, so the test creates them in a folder."""
    clone = tmp_path / "clone"
    (clone / ".venv" / "bin").mkdir(parents=True)
    for program in ("gunicorn", "python"):
        (clone / ".venv" / "bin" / program).symlink_to("/bin/sh")
    for name, unit in UNITS.items():
        (tmp_path / name).write_text(unit.replace(CLONE, str(clone)))

    def verify():
        return subprocess.run(
            ["systemd-analyze", "verify", *(str(tmp_path / name) for name in UNITS)],
            capture_output=True,
            text=True,
            check=False,
        )

    result = verify()
    # systemd also reports problems of the machine's own units.
    assert "bookit" not in result.stderr, result.stderr
    # Control: a misspelt line is reported.
    unit = tmp_path / "bookit-web.service"
    unit.write_text(unit.read_text().replace("Restart=", "Restarts="))
    assert "bookit-web.service" in verify().stderr


def test_the_web_and_worker_services_run_the_commands_documented_for_hosts_without_docker():
    steps = re.search(r"### Without Docker.*?```sh\n(.*?)```", OPERATIONS, re.DOTALL)[1]
    for name in ("bookit-web.service", "bookit-worker.service"):
        command = parsed(name)["Service"]["ExecStart"].removeprefix(f"{CLONE}/")
        assert command in steps.splitlines()


def test_the_web_and_worker_services_restart_always_and_have_more_time_to_stop_than_they_need():
    worker = settings.PROCRASTINATE_WORKER_DEFAULTS["shutdown_graceful_timeout"]
    for name, graceful in (
        ("bookit-web.service", gunicorn.graceful_timeout),
        ("bookit-worker.service", worker),
    ):
        service = parsed(name)["Service"]
        assert service["Restart"] == "always"
        assert int(service["TimeoutStopSec"]) >= graceful + 5
