"""JSON in, strictly."""

from collections.abc import Mapping
from typing import IO, Any

import orjson
from django.conf import settings
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

from bookit.errors.refusals import PayloadTooLarge


class JSONParser(BaseParser):
    """RFC 8259 to the letter: NaN, Infinity, 1e400 and bottomless nesting are errors."""

    media_type = "application/json"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return what the body says.

        Raises:
            PayloadTooLarge: it has more than DATA_UPLOAD_MAX_MEMORY_SIZE bytes.
            ParseError: it is no JSON in UTF-8.
        """
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        body = stream.read(limit + 1)
        if len(body) > limit:
            raise PayloadTooLarge
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise ParseError(f"The body is not valid JSON: {error}.") from None
