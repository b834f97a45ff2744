"""A real mail server."""

import email

from aiosmtpd.controller import Controller


class Server:
    """Accepts mails, or refuses them if `answer` says so."""

    def __init__(self):
        self.mails = []
        self.answer = "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd calls it
        if self.answer.startswith("250"):
            self.mails.append((envelope, email.message_from_bytes(envelope.content)))
        return self.answer


class AnyPort(Controller):
    """Listens on a free port, which the system chooses."""

    def _trigger_server(self):
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()
