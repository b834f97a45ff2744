"""A real SMTP server for tests."""

import email

from aiosmtpd.controller import Controller


class Mailbox:
    """Accepts and keeps emails, or refuses them if `reply` is an error."""

    def __init__(self):
        self.mails = []
        self.reply = "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd requires this name
        if self.reply.startswith("250"):
            self.mails.append((envelope, email.message_from_bytes(envelope.content)))
        return self.reply


class AnyPort(Controller):
    """Listens on `port` or, if it is 0, on a free port that the system chooses."""

    # This method connects to `port`, so it needs the port that the system has chosen.
    def _trigger_server(self):
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()
