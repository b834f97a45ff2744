"""Checks that problem documents and error pages have the documented format."""

import json
import re
from typing import Any


def problem(response: Any, status: int, code: str, *fields: str) -> dict[str, Any]:
    """Return the problem document of `response`; check that it has exactly the documented format.

    Args:
        fields: the names of all fields that `errors` must list. An empty name stands for the body
            as a whole. Without names, any list passes.
    """
    shown = f"{response.status_code} {response.get('Content-Type')} {response.content[:300]!r}"
    assert response.status_code == status, shown
    assert response["Content-Type"] == "application/problem+json", shown
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", response["X-Request-ID"])
    content = json.loads(response.content)
    required = {"type", "title", "status", "detail", "code", "request_id"}
    assert required <= content.keys() <= {*required, "errors", "alternatives"}, shown
    assert content["code"] == code, shown
    assert content["type"] == f"/errors/{code}", shown
    assert content["status"] == status, shown
    assert content["title"], shown
    assert content["detail"], shown
    assert content["request_id"] == response["X-Request-ID"], shown
    if "errors" in content:
        assert content["errors"], "the list of errors is empty"
        for error in content["errors"]:
            assert set(error) == {"field", "code", "message"}, error
            assert all(isinstance(value, str) for value in error.values()), error
            assert error["message"], error
    if fields:
        assert {error["field"] for error in content.get("errors", [])} == set(fields), shown
    if status == 401:
        assert response["WWW-Authenticate"] == "Bearer"
    if status in (429, 503):
        assert int(response["Retry-After"]) >= 1
    if status == 405:
        assert response["Allow"]
    return content


def page(response: Any, status: int) -> str:
    """Return the text of an HTML error page, with plain apostrophes; check that it is one."""
    text = str(response.content.decode())
    assert response.status_code == status, f"{response.status_code} {text[:300]!r}"
    assert response["Content-Type"] == "text/html; charset=utf-8"
    assert "<h1>" in text
    assert text.rstrip().endswith("</html>")
    assert f"Request id: {response['X-Request-ID']}" in text
    assert "Traceback" not in text
    if status == 503:
        assert int(response["Retry-After"]) >= 1
    return text.replace("&#x27;", "'")
