"""Reads metrics as Prometheus does."""

from prometheus_client.parser import text_string_to_metric_families


def families(content):
    """Return the metrics in `content`, which is in the text format of Prometheus."""
    return [*text_string_to_metric_families(content)]


def samples(content):
    """Return the value of each sample by its name and its label values.

    The label values are in the alphabetical order of the label names.
    """
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families(content)
        for sample in family.samples
    }


def scrape(client):
    """Request the metrics as a program on the server itself does, and return the samples."""
    response = client.get("/metrics", HTTP_HOST="localhost")
    assert response.status_code == 200, response.content
    assert response["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response["Cache-Control"] == "no-store"
    return samples(response.content.decode())
