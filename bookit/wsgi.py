"""The WSGI application that gunicorn serves."""

from io import BytesIO
from typing import Any

import django
from django.conf import settings
from django.core import signals
from django.core.cache import close_caches
from django.core.exceptions import BadRequest
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.db import close_old_connections, reset_queries
from django.urls import get_resolver

from bookit.runtime.startup import load_settings, load_templates
from bookit.tracing.start import trace_web


class Request(WSGIRequest):
    """A request of Django that also reads chunked bodies and accepts any `Content-Type`.

    Its scheme is the setting PUBLIC_SCHEME, if that has a value.

    If a `Content-Type` cannot be parsed, Django raises an error while it creates the request.
    Middleware, which runs later, could not turn this error into a response.
    """

    def __init__(self, environ: dict[str, Any]) -> None:
        if "HTTP_TRANSFER_ENCODING" in environ and environ.get("wsgi.input_terminated"):
            # Django would treat a chunked body as empty. One byte over the limit is enough to see
            # that the body is too large.
            body = environ["wsgi.input"].read(settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
            environ["wsgi.input"] = BytesIO(body)
            environ["CONTENT_LENGTH"] = str(len(body))
        if settings.PUBLIC_SCHEME:
            environ["wsgi.url_scheme"] = settings.PUBLIC_SCHEME
        # A copy, because Django changes the paths in `environ` even if it raises an error.
        without_type = {**environ, "CONTENT_TYPE": ""}
        try:
            super().__init__(environ)
        except (BadRequest, ValueError):  # Django raises BadRequest from version 6.1 on.
            super().__init__(without_type)

    @property
    def encoding(self) -> None:
        """None, for UTF-8: JSON, parameters and forms have no other encoding.

        Django would decode parameters with the charset of the `Content-Type`, which can also be
        the name of a codec for other data, such as `hex`. Decoding would then fail while Django
        creates the request, before middleware could handle the error.
        """

    @encoding.setter
    def encoding(self, charset: str) -> None:
        """Ignore the charset of the `Content-Type`."""


class Handler(WSGIHandler):
    """Django's handler, with the request class above."""

    request_class = Request


# Django would call these functions for each request. They have nothing to do here: queries are not
# recorded, BookIt uses no cache of Django, and a connection is checked when a request ends and
# before the first statement of the next request.
signals.request_started.disconnect(reset_queries)
signals.request_started.disconnect(close_old_connections)
signals.request_finished.disconnect(close_caches)

load_settings()  # under gunicorn, bookit.runtime.gunicorn has already loaded them
django.setup(set_prefix=False)
# Import the URLconf now, before gunicorn forks its workers. If the first requests of several
# threads imported it at the same time, a thread could see a module that is only half imported.
get_resolver().url_patterns  # noqa: B018 - the first access imports the URLconf
load_templates()
application = trace_web(Handler())
