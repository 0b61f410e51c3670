"""The body of a request as a file: bounded in bytes, time and number."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

MAX_BYTES = 20 << 20
MOST_AT_ONCE = 96  # pictures on their way or waiting
LONGEST = 30.0  # seconds until all of a picture is there


class Uploads:
    """Keeps pictures in a folder for as long as they are looked at.

    Args:
        folder: private to the page.
        max_bytes: of a picture.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES, longest: float = LONGEST) -> None:
        self.folder, self.max_bytes, self.longest = folder, max_bytes, longest
        self.running = 0

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[Path]:
        """The request's body as a file, which is gone after the block.

        Raises:
            HTTPException: it is too large, empty, broken off or too slow, or too many come at once.
        """
        if self.running >= MOST_AT_ONCE:
            raise _refused(503, "too many pictures at once; try again in a moment")
        stated = request.headers.get("content-length", "0")
        if stated.isascii() and stated.isdigit() and int(stated[:20]) > self.max_bytes:
            raise self._too_large()
        path = self.folder / uuid.uuid4().hex
        self.running += 1
        try:
            try:
                async with asyncio.timeout(self.longest):
                    await self._write(request, path)
            except TimeoutError:
                raise _refused(408, f"the picture took longer than {self.longest:g} s") from None
            except ClientDisconnect:
                raise _refused(400, "the connection ended within the picture") from None
            yield path
        finally:
            self.running -= 1
            path.unlink(missing_ok=True)

    async def _write(self, request: Request, path: Path) -> None:
        size = 0
        with path.open("xb") as file:
            async for part in request.stream():
                size += len(part)
                if size > self.max_bytes:
                    raise self._too_large()
                file.write(part)
        if not size:
            raise _refused(400, "no picture came; send the file as the request's body")

    def _too_large(self) -> HTTPException:
        return _refused(413, f"the picture has more than {self.max_bytes >> 20} MiB, the most")


def _refused(status: int, why: str) -> HTTPException:
    again = {"retry-after": "1"} if status == 503 else {}
    return HTTPException(status, why, headers={"connection": "close", **again})
