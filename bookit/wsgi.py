"""The WSGI application that gunicorn serves."""

import os
from io import BytesIO
from typing import Any

import django
from django.conf import settings
from django.core.exceptions import BadRequest
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.urls import get_resolver

from bookit.runtime.startup import load_settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bookit.settings")


class Request(WSGIRequest):
    """Django's request, which also reads chunked bodies and accepts any `Content-Type`.

    Django would raise an error while it creates the request, when no middleware can answer yet.
    """

    def __init__(self, environ: dict[str, Any]) -> None:
        if "HTTP_TRANSFER_ENCODING" in environ and environ.get("wsgi.input_terminated"):
            # Django would not see a chunked body. Parsers read at most a byte over the limit.
            body = environ["wsgi.input"].read(settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
            environ["wsgi.input"] = BytesIO(body)
            environ["CONTENT_LENGTH"] = str(len(body))
        if settings.PUBLIC_SCHEME:
            environ["wsgi.url_scheme"] = settings.PUBLIC_SCHEME
        # Django changes the paths in the first attempt.
        unread = {**environ, "CONTENT_TYPE": ""}
        try:
            super().__init__(environ)
        except (BadRequest, ValueError):  # Content-Type cannot be parsed; BadRequest from 6.1 on.
            super().__init__(unread)


class Handler(WSGIHandler):
    """Django's handler with that request."""

    request_class = Request


load_settings()  # bookit.runtime.gunicorn has done it already
django.setup(set_prefix=False)
# The addresses now, once for all workers: threads whose first requests import them at the same time
# could see modules that are only half there.
get_resolver().url_patterns  # noqa: B018 - the first look at them imports them
application = Handler()
