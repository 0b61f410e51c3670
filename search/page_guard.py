"""What every request passes before the page answers it, and what every answer carries."""

import ipaddress
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_AT_ONCE = 256  # requests; more are asked to come again
METHODS = ("GET", "HEAD", "POST")

HEADERS = {
    # The page's own files alone, and pictures that the visitor dropped (blob:).
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class Guard:
    """Wraps an app: refuses requests of other sites and names, and too many at once.

    A browser lets any site send requests here. One that comes by a name of its own which leads to
    this machine (DNS rebinding) is told by Host, others by Origin and Sec-Fetch-Site.

    Args:
        app: what answers.
        hosts: names, beside localhost and addresses in numbers, by which the page may be called.
        most: requests at once.
    """

    def __init__(self, app: App, hosts: Iterable[str] = (), most: int = MOST_AT_ONCE) -> None:
        self.app = app
        self.hosts = {host.lower() for host in hosts}
        self.most = most
        self.running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name for name, _ in message.get("headers", [])}
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                headers = [*message.get("headers", []), *(p for p in added if p[0] not in given)]
                message = {**message, "headers": headers}
            await send(message)

        status, why = self._refusal(scope)
        if status:
            await refuse(send_guarded, status, why)
            return
        self.running += 1
        try:
            await self.app(scope, receive, send_guarded)
        finally:
            self.running -= 1

    def _refusal(self, scope: Scope) -> tuple[int, str]:
        """The status and line with which a request is refused; 0 for none."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        host = headers.get("host", [])
        if scope["method"] not in METHODS:
            return 405, f"the page takes {', '.join(METHODS)}"
        if len(host) != 1 or not self._known(host[0]):
            return 421, (
                f"the page is not known as {' '.join(host)[:100]!r}; open it by localhost or by "
                "an address in numbers, or start it with --allow_host NAME"
            )
        if _of_another_site(headers, scope, host[0]):
            return 403, "another site sent this request; open the page itself"
        body = headers.get("content-length", ["0"])[0] != "0" or "transfer-encoding" in headers
        if body and scope["method"] != "POST":
            return 400, f"a {scope['method']} came with a body, which none needs here"
        if self.running >= self.most:
            return 503, "too many requests at once; try again in a moment"
        return 0, ""

    def _known(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        if name == "localhost" or name.endswith(".localhost") or name in self.hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


async def refuse(send: Send, status: int, why: str) -> None:
    """Answer with an error line, and end the connection: the request's body stays unread."""
    content = json.dumps({"error": why}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"connection", b"close"),
        *([(b"retry-after", b"1")] if status == 503 else []),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def _of_another_site(headers: dict[str, list[str]], scope: Scope, host: str) -> bool:
    """Whether a browser says that another site sent a request that only the page itself may."""
    origins = headers.get("origin", [])
    if any(origin.lower() != f"{scope['scheme']}://{host}".lower() for origin in origins):
        return True
    opened = scope["path"] == "/" and scope["method"] == "GET"  # a link may lead to the page
    fetched_by = headers.get("sec-fetch-site", ["none"])
    return not opened and any(site not in ("same-origin", "none") for site in fetched_by)
