"""An endpoint of webhooks that answers at once.

Run: `python -m bookit.tools.benchmark.endpoint <messages>`.

It prints its port. When it has received that many messages, it prints how many seconds passed
between the first and the last.
"""

import asyncio
import re
import sys
from time import monotonic

LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)


async def serve(expected: int) -> None:
    """Answer messages until the expected number has arrived."""
    arrived: list[float] = []
    complete = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not complete.is_set():
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:  # The other side has closed the connection.
                break
            length = LENGTH.search(head)
            await reader.readexactly(int(length[1]) if length else 0)
            arrived.append(monotonic())
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            await writer.drain()
            if len(arrived) == expected:
                complete.set()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    _say(server.sockets[0].getsockname()[1])
    await complete.wait()
    _say(arrived[-1] - arrived[0])
    server.close()


def _say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
