"""The WSGI application that gunicorn serves."""

import os
from io import BytesIO
from typing import Any

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.urls import get_resolver

from bookit.runtime.startup import load_settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bookit.settings")


class Request(WSGIRequest):
    """Django's request, which also reads chunked bodies and survives a senseless Content-Type.

    Django raises while it makes the request, where no middleware can answer yet.
    """

    def __init__(self, environ: dict[str, Any]) -> None:
        if "HTTP_TRANSFER_ENCODING" in environ and environ.get("wsgi.input_terminated"):
            # A chunked body, of which Django would see nothing: read as much as is ever looked at.
            body = environ["wsgi.input"].read(settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
            environ["wsgi.input"] = BytesIO(body)
            environ["CONTENT_LENGTH"] = str(len(body))
        super().__init__(environ)

    def _get_scheme(self) -> str:
        """Return `http` or `https`: Django's hook for what is not known from a header."""
        return settings.PUBLIC_SCHEME or str(super()._get_scheme())  # type: ignore[misc]

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        try:
            super()._set_content_type_params(meta)  # type: ignore[misc]
        except ValueError:
            meta["CONTENT_TYPE"] = self.content_type = ""
            self.content_params = {}


class Handler(WSGIHandler):
    """Django's handler with that request."""

    request_class = Request


load_settings()  # bookit.runtime.gunicorn has done it already
django.setup(set_prefix=False)
# The addresses now, once for all workers: threads whose first requests import them at the same time
# could see modules that are only half there.
get_resolver().url_patterns  # noqa: B018 - the first look at them imports them
application = Handler()
