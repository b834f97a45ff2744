"""The WSGI application that gunicorn serves."""

import os
from typing import Any

import django
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bookit.settings")


class Request(WSGIRequest):
    """Django's request, for which a senseless Content-Type is no reason to break down.

    Django raises while it makes the request, where no middleware can answer yet.
    """

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        try:
            super()._set_content_type_params(meta)  # type: ignore[misc]
        except ValueError:
            meta["CONTENT_TYPE"] = self.content_type = ""
            self.content_params = {}


class Handler(WSGIHandler):
    """Django's handler with that request."""

    request_class = Request


django.setup(set_prefix=False)
application = Handler()
