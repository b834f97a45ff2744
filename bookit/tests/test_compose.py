"""compose.yaml and compose.tls.yaml pass settings, create secrets and stop containers cleanly."""

import os
import re
import runpy
import subprocess
import time
from urllib.parse import unquote

import pytest
from django.conf import settings
from psycopg.conninfo import conninfo_to_dict

from bookit.runtime import environment, gunicorn
from bookit.runtime.startup import BASE_DIR
from bookit.tests.compose import Required, read

OURS = ("migrate", "web", "worker")
MAIL = {"EMAIL_URL": "dummymail://"}


@pytest.fixture
def compose():
    return read("compose.yaml", MAIL)


def seconds(duration):
    number, unit = re.fullmatch(r"(\d+)(s|m)", duration).groups()
    return int(number) * {"s": 1, "m": 60}[unit]


@pytest.mark.parametrize("service", OURS)
def test_every_setting_of_the_env_file_reaches_bookit(compose, service):
    service = compose["services"][service]
    assert service["env_file"] == [{"path": ".env", "required": False}]
    # The variables that compose.yaml itself sets or overrides.
    assert service["environment"].keys() - {"WORKER_HEARTBEAT_FILE"} == {
        *("APP_ENV", "PORT", "SECRET_KEY_FILE", "DATABASE_URL", "DATABASE_URL_FILE"),
        *("EMAIL_URL", "ALLOWED_HOSTS", "COMPOSE_PROXIES", "REDIS_URL"),
    }


@pytest.mark.parametrize("service", OURS)
def test_bookit_starts_with_the_settings_of_compose(compose, service, monkeypatch, tmp_path):
    """The settings of compose.yaml win even if the `.env` file has settings for development."""
    for name in environment.known:
        monkeypatch.setenv(name, "")
    variables = {"APP_ENV": "development", "PORT": "9000", "DATABASE_URL": "postgresql://a@b/c"}
    variables |= compose["services"][service]["environment"]
    for name, value in make_secrets(tmp_path).items():
        variables = {k: v.replace(f"/secrets/{name}", str(value)) for k, v in variables.items()}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = runpy.run_path(str(BASE_DIR / "bookit" / "settings.py"))
    assert found["PRODUCTION"] is True
    assert (found["PORT"], found["NUM_PROXIES"]) == (8000, 1)
    assert found["ALLOWED_HOSTS"] == ["localhost"]
    assert found["REDIS_URL"] == "redis://redis:6379/0"
    assert found["SECRET_KEY"] == (tmp_path / "secret_key").read_text()
    database = found["DATABASES"]["default"]
    password = (tmp_path / "postgres_password").read_text()
    assert (database["HOST"], database["PASSWORD"]) == ("db", password)


def test_compose_requires_an_email_url():
    with pytest.raises(Required, match=r"EMAIL_URL must be set in \.env\. .*dummymail://"):
        read("compose.yaml", {})


def test_the_domain_is_the_allowed_host_unless_hosts_are_set():
    for given, expected in (
        ({}, "localhost"),
        ({"DOMAIN": "a.example"}, "a.example"),
        ({"DOMAIN": "a.example", "ALLOWED_HOSTS": "b.example"}, "b.example"),
    ):
        web = read("compose.yaml", {**MAIL, **given})["services"]["web"]
        assert web["environment"]["ALLOWED_HOSTS"] == expected


def test_port_sets_the_published_port_and_the_proxies_reach_the_web_server():
    changed = read("compose.yaml", {**MAIL, "PORT": "127.0.0.1:9000"})
    services = changed["services"]
    assert services["proxy"]["ports"] == ["127.0.0.1:9000:80"]
    inside = services["web"]["environment"]["PORT"]
    assert f"server web:{inside};" in changed["configs"]["proxy"]["content"]
    tls = read("compose.tls.yaml", {"DOMAIN": "a.example"})
    assert f"reverse_proxy web:{inside} " in tls["configs"]["caddy"]["content"]


def test_containers_get_more_time_to_stop_than_they_need(compose):
    worker = settings.PROCRASTINATE_WORKER_DEFAULTS["shutdown_graceful_timeout"]
    services = compose["services"]
    for name, graceful in (
        ("web", gunicorn.graceful_timeout),
        ("worker", worker),
        ("proxy", gunicorn.graceful_timeout),
    ):
        assert seconds(services[name]["stop_grace_period"]) >= graceful + 5, name


def test_nginx_restarts_with_the_web_server_and_caddy_does_not(compose):
    """nginx keeps the IP address that `web` had when nginx started; Caddy looks it up again."""
    proxy = compose["services"]["proxy"]
    assert "resolver" not in compose["configs"]["proxy"]["content"]
    assert proxy["depends_on"]["web"] == {"condition": "service_healthy", "restart": True}
    caddy = read("compose.tls.yaml", {"DOMAIN": "a.example"})["services"]["proxy"]
    assert caddy["depends_on"]["web"] == {"condition": "service_healthy", "restart": False}


def test_the_web_server_the_worker_and_the_database_have_health_checks(compose):
    """The proxy needs no health check, because the check would only send a request to `web`.

    `web` uses the health check of the image.
    """
    services = compose["services"]
    assert "HEALTHCHECK" in (BASE_DIR / "Dockerfile").read_text()
    assert "healthcheck" not in services["web"]
    assert services["worker"]["healthcheck"]["test"][0] == "CMD-SHELL"
    assert services["db"]["healthcheck"]["test"][0] == "CMD"


def test_postgresql_is_not_healthy_while_its_image_creates_the_database(compose):
    """Meanwhile, the image runs a server that listens only on a Unix socket."""
    [kind, *check] = compose["services"]["db"]["healthcheck"]["test"]
    assert (kind, check[:3]) == ("CMD", ["pg_isready", "--host", "127.0.0.1"])


def test_a_worker_is_healthy_while_it_touches_its_file_every_minute(compose, tmp_path):
    worker = compose["services"]["worker"]
    assert worker["environment"]["WORKER_HEARTBEAT_FILE"] == "/tmp/worker"
    file = tmp_path / "worker"

    def is_healthy():
        check = subprocess.run(
            ["sh", "-c", worker["healthcheck"]["test"][1]],
            env={"PATH": os.environ["PATH"], "WORKER_HEARTBEAT_FILE": str(file)},
            capture_output=True,
            check=False,
        )
        return check.returncode == 0

    assert not is_healthy()
    file.touch()
    assert is_healthy()
    over_a_minute_ago = time.time() - 61
    os.utime(file, (over_a_minute_ago, over_a_minute_ago))
    assert not is_healthy()


# --- secrets ----------------------------------------------------------------------------------


def make_secrets(folder, **variables):
    """Run the command of the service `secrets` in a folder; return the files there, by name."""
    service = read("compose.yaml", MAIL)["services"]["secrets"]
    [script] = service["command"]
    subprocess.run(
        [*service["entrypoint"], script.replace("/secrets/", f"{folder}/")],
        env={"PATH": os.environ["PATH"], "POSTGRES_PASSWORD": "", **variables},
        check=True,
    )
    return {path.name: path for path in folder.iterdir()}


def test_secrets_are_created_once_and_kept(tmp_path):
    first = {name: path.read_text() for name, path in make_secrets(tmp_path).items()}
    assert first.keys() == {"secret_key", "postgres_password", "database_url"}
    assert re.fullmatch(r"[A-Za-z0-9]{64}", first["secret_key"])
    assert re.fullmatch(r"[A-Za-z0-9]{64}", first["postgres_password"])
    password = first["postgres_password"]
    assert unquote(first["database_url"]) == f"postgresql://bookit:{password}@db:5432/bookit"
    again = make_secrets(tmp_path, POSTGRES_PASSWORD="another")
    assert {name: path.read_text() for name, path in again.items()} == first


def test_empty_secrets_are_created_again(tmp_path):
    for name in ("secret_key", "postgres_password"):
        (tmp_path / name).touch()
    files = make_secrets(tmp_path)
    for name in ("secret_key", "postgres_password"):
        assert len(files[name].read_text()) == 64


def test_a_given_password_is_used(tmp_path):
    password = "a/b?c%41 @:#é"
    files = make_secrets(tmp_path, POSTGRES_PASSWORD=password)
    assert files["postgres_password"].read_text() == password
    url = environment.postgres_url("DATABASE_URL", files["database_url"].read_text())
    assert conninfo_to_dict(url)["password"] == password


def test_the_url_of_the_database_is_written_at_each_start(tmp_path):
    files = make_secrets(tmp_path)
    stored = files["database_url"].read_text()
    files["database_url"].write_text("postgresql://bookit:a/b@db:5432/bookit")
    assert make_secrets(tmp_path)["database_url"].read_text() == stored


def test_the_documented_commands_can_be_run_again(tmp_path):
    """Lines that call Docker are not run here. The tests above check what Docker runs."""
    found = re.search(
        r"```sh\n([^`]*docker compose up[^`]*)```",
        (BASE_DIR / "docs" / "operations.md").read_text(),
    )
    without_docker = [line for line in found[1].splitlines() if "docker" not in line]
    assert without_docker
    (tmp_path / ".env.example").write_text((BASE_DIR / ".env.example").read_text())
    subprocess.run(["sh", "-euc", "\n".join(without_docker)], cwd=tmp_path, check=True)
    env = tmp_path / ".env"
    assert env.stat().st_mode & 0o777 == 0o600
    env.write_text("EMAIL_URL=smtp://mail.example.com\n")
    subprocess.run(["sh", "-euc", "\n".join(without_docker)], cwd=tmp_path, check=True)
    assert env.read_text() == "EMAIL_URL=smtp://mail.example.com\n"


# --- TLS --------------------------------------------------------------------------------------


def test_tls_replaces_the_proxy_and_requires_a_domain():
    with pytest.raises(Required, match=r"DOMAIN must be set in \.env"):
        read("compose.tls.yaml", {})
    tls = read("compose.tls.yaml", {"DOMAIN": "a.example"})
    assert tls["services"].keys() == {"proxy"}
    assert tls["services"]["proxy"]["ports"] == ["80:80", "443:443", "443:443/udp"]
