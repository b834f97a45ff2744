"""The responses of the API's views."""

from collections.abc import Mapping
from typing import Any

from django.http import HttpResponse

JSON = "application/json"


class Response(HttpResponse):
    """A response with data. A renderer writes the data as the body before the view returns.

    If the data is None, there is no body. DRF's response is a `SimpleTemplateResponse`, which
    Django renders later, outside the view.
    """

    is_written = False

    def __init__(
        self,
        data: Any = None,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        content_type: str | None = None,
    ) -> None:
        super().__init__(status=status, headers=headers, content_type=content_type or JSON)
        self.data = data
        self._has_own_type = content_type is not None

    def write_with(self, renderer: Any, context: Mapping[str, Any]) -> None:
        """Write the data as the body."""
        self.content = renderer.render(self.data, renderer.media_type, context)
        if not self._has_own_type and renderer.media_type != JSON:
            self.headers["Content-Type"] = f"{renderer.media_type}; charset={renderer.charset}"
        self.is_written = True
