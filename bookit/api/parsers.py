"""A strict JSON parser."""

from collections.abc import Mapping
from typing import IO, Any

import orjson
from django.conf import settings
from django.utils.translation import gettext as _
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

from bookit.errors.refusals import PayloadTooLarge


class JSONParser(BaseParser):
    """Accepts only JSON as in RFC 8259; NaN, Infinity, 1e400 and very deep nesting are errors."""

    media_type = "application/json"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the parsed body.

        Raises:
            PayloadTooLarge: the body has more than DATA_UPLOAD_MAX_MEMORY_SIZE bytes.
            ParseError: the body is not JSON in UTF-8, or is nested too deeply.
        """
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        body = stream.read(limit + 1)
        if len(body) > limit:
            raise PayloadTooLarge
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise ParseError(
                _("The body is not valid JSON: %(error)s.") % {"error": error}
            ) from None
