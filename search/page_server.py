"""Serve the page until a signal ends it."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from search.page_app import create_app
from search.page_guard import Guard
from search.page_state import Page
from utils.errors import UserError

BACKLOG = 256
LARGEST_PORT = 65_535
CONNECTIONS = 512  # open at once; more are answered 503
HEADER_BYTES = 32 << 10
LAST_ANSWERS = 5  # seconds for answers under way when the page ends


class Server(uvicorn.Server):
    """uvicorn's, which leaves the signals to `serve`."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes a free one.

    Raises:
        UserError: it cannot.
    """
    if not 0 <= port <= LARGEST_PORT:
        raise UserError(f"--port is {port}, expected 0 (any free one) to {LARGEST_PORT}")
    try:
        ((family, kind, protocol, _, place), *_) = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(BACKLOG)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"cannot listen on {host} port {port} ({why}); choose another --port (0: any free one)"
        ) from None
    return listener


def address(listener: socket.socket) -> str:
    """What to open in a browser."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def make_server(page: Page, hosts: list[str]) -> Server:
    """A server of the page, known by `hosts` beside localhost and addresses in numbers."""
    config = uvicorn.Config(
        Guard(create_app(page), hosts),
        http="h11",
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        server_header=False,
        date_header=False,
        backlog=BACKLOG,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=LAST_ANSWERS,
        h11_max_incomplete_event_size=HEADER_BYTES,
    )
    return Server(config)


def serve(server: Server, listener: socket.socket) -> None:
    """Answer requests until SIGINT or SIGTERM; a second one ends at once."""

    def stop() -> None:
        server.force_exit = server.should_exit
        server.should_exit = True

    async def run() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop)
        await server.serve(sockets=[listener])

    asyncio.run(run())
