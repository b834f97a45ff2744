"""Lets endpoints accept idempotency keys (draft-ietf-httpapi-idempotency-key-header)."""

from collections.abc import Callable
from datetime import datetime
from functools import partial, wraps
from hashlib import sha256
from typing import Any, Concatenate, ParamSpec, TypeVar

import orjson
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _
from rest_framework.exceptions import ParseError
from rest_framework.request import Request

from bookit.api.etags import entity_tag
from bookit.api.keys import UsedKey
from bookit.api.renderers import JSONRenderer
from bookit.api.schema import IDEMPOTENCY_KEY
from bookit.api.views import RowViewSet
from bookit.database.retries import TRIES, retried
from bookit.errors import problems
from bookit.errors.handler import REFUSALS
from bookit.errors.refusals import refuse
from bookit.idempotency import services
from bookit.responses import Response

View = TypeVar("View", bound=RowViewSet)
Arguments = ParamSpec("Arguments")
Action = Callable[Concatenate[View, Request, Arguments], Response]

MAX_KEY_LENGTH = 255
# Responses with these statuses are not kept, because the same request can succeed later: not signed
# in, not permitted, timed out, in conflict, and too many requests.
NOT_KEPT = frozenset({401, 403, 408, 409, 429})


def idempotent(action: Action[View, Arguments]) -> Action[View, Arguments]:
    """Let an action of a view accept the header `Idempotency-Key`.

    With this header, the whole action is one transaction, which also keeps the response. If the
    action raises a refusal, a second transaction keeps the response. Responses whose status is in
    `NOT_KEPT` or is at least 500 are not kept. A kept response is sent only to a user who may still
    act on what the path and the body name.
    """

    @wraps(action)
    def run(
        self: View, request: Request, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Response:
        key = request.headers.get(IDEMPOTENCY_KEY)
        if key is None:
            return action(self, request, *args, **kwargs)
        if not 1 <= len(key) <= MAX_KEY_LENGTH or "\0" in key:
            raise refuse(
                IDEMPOTENCY_KEY, _("Use 1 to %(most)d characters.") % {"most": MAX_KEY_LENGTH}
            )
        return _respond_once(self, request, key, partial(action, self, request, *args, **kwargs))

    run.takes = IDEMPOTENCY_KEY  # type: ignore[attr-defined]
    return run


class _AlreadyKept(Exception):
    """Another request kept a response for the key after `claim` had found none."""


def _respond_once(
    view: RowViewSet, request: Request, key: str, action: Callable[[], Response]
) -> Response:
    """Return the kept response if there is one; otherwise, the response of `action`."""
    at = timezone.now()
    claimed: dict[str, Any] = {
        "owner": request.auth.id if isinstance(request.auth, UsedKey) else request.user.pk,
        "key": key,
        "fingerprint": _fingerprint(request),
        "at": at,
    }

    @retried
    @transaction.atomic
    def attempt() -> Response:
        kept = services.claim(**claimed)
        if kept is not None:
            # The response can contain what the user may no longer see, such as the details of a
            # customer for whom they may no longer book.
            view.check_named()
            return _replay(kept)
        response = action()
        if not _keep(request, response, claimed):
            raise _AlreadyKept
        return response

    for _try in range(TRIES):
        try:
            return attempt()
        except _AlreadyKept:
            continue
        except (services.IdempotencyInProgress, services.IdempotencyKeyReused):
            raise
        except REFUSALS as error:
            response: Any = view.handle_exception(error)
            if response.status_code < 500 and response.status_code not in NOT_KEPT:
                with transaction.atomic():
                    _keep(request, response, claimed)
            return response
    raise services.IdempotencyInProgress


def _fingerprint(request: Request) -> bytes:
    """Return a hash of the request: its method, path, parameters and JSON.

    Raises:
        ParseError: the body is nested too deeply, or is not JSON.
    """
    try:
        body = orjson.dumps(request.data, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # orjson reads deeper nesting than it writes.
        raise ParseError(_("The body is nested too deeply.")) from None
    return sha256(f"{request.method} {request.get_full_path()}\n".encode() + body).digest()


def _keep(request: Request, response: Response, claimed: dict[str, Any]) -> bool:
    body = JSONRenderer().render(response.data, renderer_context={"request": request})
    location = response.headers.get("Location", "")
    user: Any = request.user
    return services.keep(
        **claimed,
        user_id=user.pk,
        status=response.status_code,
        location=location,
        body=body,
    )


def _replay(kept: services.Kept) -> Response:
    """Return the kept response, with its entity tag and the header `Idempotent-Replayed`."""
    headers = {"Idempotent-Replayed": "true"}
    if kept.location:
        headers["Location"] = kept.location
    is_problem = kept.status >= 400
    if kept.status == 201:
        # The first response had an entity tag with the version of the new row, for `If-Match`.
        updated_at = orjson.loads(kept.body).get("updated_at")
        if updated_at:
            headers["ETag"] = entity_tag(bytes(kept.body), datetime.fromisoformat(updated_at))
    return Response(
        orjson.Fragment(bytes(kept.body)) if kept.body else None,
        status=kept.status,
        headers=headers,
        content_type=problems.CONTENT_TYPE if is_problem else None,
    )
