"""The dashboard and the alert rules parse, and name only metrics and labels that exist."""

import json
import re
import shutil
import subprocess

import promql_parser
import pytest
import yaml
from django.db import connection

from accounts.tests.factories import UserFactory
from bookings.tests.factories import TUESDAY
from bookit.database.replicas import Replica
from bookit.metrics.process import CATALOG_READS
from bookit.metrics.tests.scraping import families
from bookit.runtime.startup import BASE_DIR
from catalog.tests.factories import ServiceFactory

FOLDER = BASE_DIR / "docs" / "monitoring"
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
ALERTS = yaml.safe_load((FOLDER / "alerts.yaml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

EXPRESSIONS = {
    **{rule["alert"]: rule["expr"] for rule in RULES},
    **{
        f"{panel['title']} {target['refId']}": target["expr"].replace("$__rate_interval", "5m")
        for panel in PANELS
        for target in panel["targets"]
    },
}
# The metrics that Prometheus itself adds.
ADDED_BY_PROMETHEUS = {"up": {"job", "instance"}}


def selectors(expression):
    """Yield the name of each metric that an expression selects, and the labels of its matchers."""
    # The parser checks the syntax and the types; its output has one line for each selector.
    text = promql_parser.parse(expression).prettify()
    for name, matchers in re.findall(r"\b([a-z_:]\w*)(?:\{([^}]*)\})?(?=[\[\s)]|$)", text):
        if name.startswith("bookit_") or name in ADDED_BY_PROMETHEUS:
            yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))


def grouped_by(expression, clauses="by|without"):
    """Return the labels in the clauses `by (...)` and `without (...)` of an expression."""
    return {
        label
        for labels in re.findall(rf"\b(?:{clauses})\s*\(([^)]*)\)", expression)
        for label in re.findall(r"\w+", labels)
    }


@pytest.fixture
def existing(api, monkeypatch):
    """Return the labels that each metric can have, by the name of the metric."""
    # Some metrics exist only after a job, a booking or a request to a replica.
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO procrastinate_jobs (queue_name, task_name, status)"
            " VALUES ('default', 'bookit.prune_jobs', 'failed')"
        )
        cursor.execute(
            "INSERT INTO bookit_jobtally (task, outcome, bucket, jobs, seconds)"
            " VALUES ('bookit.prune_jobs', 'succeeded', 1, 1, 0.5)"
        )
    body = {"service_id": str(ServiceFactory().pk), "start_time": TUESDAY.isoformat()}
    assert api.as_(UserFactory()).post("/bookings", body).status_code == 201
    replica = Replica(connection.alias)
    replica.was_seen.set()
    monkeypatch.setattr("bookit.metrics.replicas.replicas", lambda: (replica,))
    CATALOG_READS.labels("replica")
    content = api.get("/metrics", HTTP_HOST="localhost").content.decode()
    found = dict(ADDED_BY_PROMETHEUS)
    for family in families(content):
        for sample in family.samples:
            found.setdefault(sample.name, {"job", "instance"}).update(sample.labels)
    return found


@pytest.mark.django_db
def test_the_expressions_name_every_metric_and_only_metrics_and_labels_that_exist(existing):
    used = set()
    for title, expression in EXPRESSIONS.items():
        found = [*selectors(expression)]
        assert found, title
        for name, labels in found:
            assert name in existing, f"{title}: there is no metric {name}"
            assert labels <= existing[name], title
            used.add(name)
        assert grouped_by(expression) <= set().union(*(existing[name] for name, _ in found)), title
    ours = {name for name in existing if name.startswith("bookit_")}
    assert ours - used == set()


def test_selectors_finds_names_and_labels_and_refuses_invalid_expressions():
    """Control for the test above: `selectors` and `grouped_by` overlook nothing."""
    with pytest.raises(ValueError):
        [*selectors("sum(rate(bookit_http_requests_total[5m])")]
    with pytest.raises(ValueError):
        [*selectors("rate(bookit_http_requests_total)")]
    found = [
        *selectors('sum by (a, b) (rate(bookit_nothing{c="1", d!~"2"}[5m])) / bookit_more > 1')
    ]
    assert found == [("bookit_nothing", {"c", "d"}), ("bookit_more", set())]
    assert grouped_by("sum by (a, b) (max without (c) (x))") == {"a", "b", "c"}


def test_legends_and_messages_use_labels_of_their_expressions():
    for panel in PANELS:
        for target in panel["targets"]:
            labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert labels <= grouped_by(target["expr"], "by"), panel["title"]
    for rule in RULES:
        text = " ".join(rule["annotations"].values())
        labels = set(re.findall(r"\$labels\.(\w+)", text))
        # An aggregation keeps only the labels of its `by`.
        aggregates = re.search(r"\b(sum|min|max)\b", rule["expr"])
        known = grouped_by(rule["expr"], "by") if aggregates else {"instance", "job"}
        assert labels <= known, rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_the_panels_of_the_dashboard_do_not_overlap():
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24  # the columns of Grafana's grid
        assert not cells & taken, panel["title"]
        taken |= cells


PROMTOOL = shutil.which("promtool")


@pytest.mark.skipif(PROMTOOL is None, reason="promtool, a part of Prometheus, is not installed")
def test_promtool_accepts_the_alert_rules():
    command = [PROMTOOL, "check", "rules", FOLDER / "alerts.yaml"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rules found" in done.stdout


@pytest.mark.django_db
def test_exactly_the_existing_metrics_are_documented(existing):
    text = (BASE_DIR / "docs" / "operations.md").read_text()
    documented = set(re.findall(r"`(bookit_\w+)`", text.split("## Metrics and traces")[1]))
    suffix = re.compile("_(bucket|sum|count)$")
    ours = {suffix.sub("", name) for name in existing if name.startswith("bookit_")}
    assert documented == ours
