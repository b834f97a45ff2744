"""A real mail server."""

import email

from aiosmtpd.controller import Controller


class Server:
    """Takes mails, or refuses them."""

    def __init__(self):
        self.mails = []
        self.answer = "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd calls it
        if self.answer.startswith("250"):
            self.mails.append((envelope, email.message_from_bytes(envelope.content)))
        return self.answer


class AnyPort(Controller):
    """Listens on a port that the system has chosen."""

    def _trigger_server(self):
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()
