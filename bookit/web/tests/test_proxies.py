"""Real proxies (of the Compose files, and of an operator) in front of a real web server."""

import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest
from django.db import connection

from bookit.runtime.startup import BASE_DIR
from bookit.tests.compose import read
from bookit.tests.processes import free_port
from catalog.tests.factories import ServiceFactory

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
CADDY = shutil.which("caddy")
with_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
with_caddy = pytest.mark.skipif(CADDY is None, reason="Caddy is not installed")

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux can use all of 127.0.0.0/8"),
]

NGINX_CONFIG = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  {content}
}}
"""
# The configuration of an operator's own proxy, which terminates TLS.
OUTER_PROXY = """
server {{
  listen 127.0.0.1:{port} ssl; access_log off;
  ssl_certificate {folder}/certificate.pem; ssl_certificate_key {folder}/key.pem;
  location / {{
    proxy_pass http://127.0.0.1:{inner};
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
  }}
}}
"""


class Stack(ExitStack):
    """Starts programs that each listen on their own port, and kills them after the test.

    Each method returns the port of the program. The arguments `web` and `inner` are ports, too.
    """

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def run(self, arguments, port, **variables):
        """Start a program, wait until it listens on `port`, and return `port`."""
        output = self.folder / f"output-{port}"
        with output.open("wb") as file:
            process = self.enter_context(
                subprocess.Popen(
                    arguments,
                    env={**os.environ, **variables},
                    stdout=file,
                    stderr=file,
                    cwd=BASE_DIR,
                )
            )
        self.callback(process.kill)
        deadline = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return port
            except OSError:
                assert process.poll() is None, output.read_text()
                assert time.monotonic() < deadline, output.read_text()
                time.sleep(0.1)

    def web(self, **env_file):
        """Start the web server like the container `web`, with these variables in `.env`."""
        variables = {"EMAIL_URL": "dummymail://", **env_file}
        compose = read("compose.yaml", variables)["services"]["web"]["environment"]
        port = free_port()
        found = connection.settings_dict
        url = "postgresql://{USER}:{PASSWORD}@{HOST}:{PORT}/{NAME}".format(**found)
        ours = {
            "DATABASE_URL": url,
            "SECRET_KEY": "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
            "PORT": str(port),
            "WEB_CONCURRENCY": "1",
            # The limit is per day, because the window slides: a limit per minute could allow an
            # eleventh attempt.
            "RATE_LIMIT_AUTH": "10/day",
        }
        web = [sys.executable, "-m", "gunicorn", "-c", "python:bookit.runtime.gunicorn"]
        return self.run(web, port, **{**variables, **compose, **ours})

    def nginx(self, content, port):
        folder = self.folder / str(port)
        folder.mkdir()
        (folder / "nginx.conf").write_text(NGINX_CONFIG.format(folder=folder, content=content))
        return self.run([NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")], port)

    def proxy(self, web, **env_file):
        """Start the proxy of compose.yaml in front of the web server."""
        port = free_port()
        content = read("compose.yaml", {"EMAIL_URL": "x", **env_file})["configs"]["proxy"]
        content = content["content"].replace("web:8000", f"127.0.0.1:{web}")
        return self.nginx(content.replace("listen 80;", f"listen 127.0.0.1:{port};"), port)

    def outer(self, inner):
        """Start a TLS proxy in front of another proxy."""
        port = free_port()
        make = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -days 1"
        files = ["-keyout", self.folder / "key.pem", "-out", self.folder / "certificate.pem"]
        subprocess.run([*make.split(), *files], check=True, capture_output=True)
        content = OUTER_PROXY.format(port=port, inner=inner, folder=self.folder)
        return self.nginx(content, port)

    def caddy(self, web):
        """Start the proxy of compose.tls.yaml, which creates its own certificate."""
        port = free_port()
        content = read("compose.tls.yaml", {"DOMAIN": "localhost"})["configs"]["caddy"]["content"]
        content = content.replace("web:8000", f"127.0.0.1:{web}").replace(
            "{\n",
            f"{{\nadmin off\nskip_install_trust\nhttp_port {free_port()}\nhttps_port {port}\n",
            1,
        )
        version = subprocess.run([CADDY, "version"], capture_output=True, text=True, check=True)
        if version.stdout.lstrip("v").startswith(("2.4", "2.5", "2.6")):
            # Caddy before 2.7 has another name for this option. The container has a newer Caddy.
            content = content.replace("request_buffers 2MB", "buffer_requests")
        (self.folder / "Caddyfile").write_text(content)
        arguments = [CADDY, "run", "--adapter", "caddyfile", "--config"]
        home = {"XDG_DATA_HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder)}
        return self.run(
            [*arguments, str(self.folder / "Caddyfile")], port, DOMAIN="localhost", **home
        )


@pytest.fixture
def stack(tmp_path):
    with Stack(tmp_path) as stack:
        yield stack


def send(port, method, path, body=None, *, client="127.0.0.1", tls=False, headers=()):
    """Send a request from the IP address `client`, and return the status and the body."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    kind = http.client.HTTPSConnection if tls else http.client.HTTPConnection
    options = {"context": context} if tls else {}
    sender = kind("localhost", port, timeout=60, source_address=(client, 0), **options)
    given = {"Content-Type": "application/json", **dict(headers)}
    sender.request(method, path, body and json.dumps(body), given)
    response = sender.getresponse()
    content = response.read()
    sender.close()
    return response.status, content


def failed_login(port, number, **options):
    """Try to sign in to an unknown account, and return the status of the response."""
    body = {"email": f"nobody{number}@example.com", "password": "not that one"}
    status, _ = send(port, "POST", "/auth/login", body, **options)
    return status


def check(port, *, tls, scheme):
    """Check that each client has its own rate limit, and that links have this scheme.

    Clients can affect neither with forged headers.
    """
    statuses = [failed_login(port, n, client=f"127.0.1.{n}", tls=tls) for n in range(1, 12)]
    assert statuses == [401] * 11
    # A client that sends forged IP addresses is still counted as one client.
    statuses = [
        failed_login(
            port, n, client="127.0.2.1", tls=tls, headers={"X-Forwarded-For": f"192.0.2.{n}"}
        )
        for n in range(1, 12)
    ]
    assert statuses == [401] * 10 + [429]
    ServiceFactory.create_batch(2)
    for claimed in ("http", "https", "gopher"):
        headers = {"X-Forwarded-Proto": claimed}
        status, content = send(port, "GET", "/services?limit=1", tls=tls, headers=headers)
        assert status == 200
        assert json.loads(content)["next"].startswith(f"{scheme}://localhost:{port}/services?")


@with_nginx
def test_the_proxy_of_compose_yaml_passes_on_client_addresses(stack):
    proxy = stack.proxy(stack.web())
    check(proxy, tls=False, scheme="http")


@with_nginx
def test_an_outer_proxy_can_terminate_tls(stack):
    inner = stack.proxy(stack.web(NUM_PROXIES="1"), NUM_PROXIES="1")
    check(stack.outer(inner), tls=True, scheme="https")


@with_nginx
def test_public_scheme_sets_the_scheme_of_links(stack):
    proxy = stack.proxy(stack.web(PUBLIC_SCHEME="https"))
    check(proxy, tls=False, scheme="https")


@with_caddy
def test_the_proxy_of_compose_tls_yaml_passes_on_client_addresses(stack):
    caddy = stack.caddy(stack.web(DOMAIN="localhost"))
    check(caddy, tls=True, scheme="https")
