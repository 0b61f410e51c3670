"""What the page answers to which address."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as AnyHTTPException

from search.page_answers import Code, read_codes, search_by_codes, search_by_id, submit
from search.page_coder import Busy
from search.page_pictures import MAX_PIXELS, check_upload, reason
from search.page_side import LARGEST_K, Asked
from search.page_state import Page, Shown
from search.store import Packed
from search.where import LONGEST
from utils.errors import UserError

ASSETS = Path(__file__).parent / "page_assets"
KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
KEPT = "private, max-age=600"  # of pictures: an id is given once, but an index may be built anew
LARGEST_ID = 2**63 - 1
TEXT = 1000  # characters of a name

Id = Annotated[int, Query(ge=0, le=LARGEST_ID)]
Number = Annotated[int, Query(ge=0, le=1)]


def asked_for(
    k: Annotated[int, Query(ge=1, le=LARGEST_K)] = 10,
    label: Annotated[str, Query(max_length=TEXT)] = "",
    split: Annotated[str, Query(max_length=TEXT)] = "",
    where: Annotated[str, Query(max_length=LONGEST)] = "",
) -> Asked:
    """The part of an address that says what is looked for."""
    return Asked(k, label, split, where)


Wanted = Annotated[Asked, Depends(asked_for)]


def create_app(page: Page) -> FastAPI:
    """The page's addresses, over what it shows."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    _answer_errors(app)
    _add_files(app)
    _add_views(app, page)
    _add_search(app, page)
    return app


def _add_files(app: FastAPI) -> None:
    """The files that a browser needs; they are read once, and no address names a path."""
    files = {path.name: path for path in ASSETS.iterdir() if path.suffix in KINDS}
    contents = {name: path.read_bytes() for name, path in files.items()}

    def give(name: str, request: Request) -> Response:
        if name not in contents:
            raise HTTPException(404, "there is no such file")
        tag = f'"{sha256(contents[name]).hexdigest()[:16]}"'
        headers = {"etag": tag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        kind = KINDS[files[name].suffix]
        return Response(contents[name], media_type=kind, headers=headers)

    @app.get("/")
    def index(request: Request) -> Response:
        return give("index.html", request)

    @app.get("/assets/{name}")
    def asset(name: str, request: Request) -> Response:
        return give(name, request)


def _add_views(app: FastAPI, page: Page) -> None:
    @app.get("/api/info")
    def info() -> Any:
        return {
            "sides": [
                {**_seen(each).side.info(), "no_coder": each.no_coder} for each in page.shown
            ],
            "largest_k": LARGEST_K,
            "max_bytes": page.uploads.max_bytes,
            "max_pixels": MAX_PIXELS,
        }

    @app.get("/api/browse")
    def browse(
        asked: Wanted, side: Number = 0, offset: Id = 0,
        shuffle: Annotated[int, Query(ge=0, le=2**32 - 1)] = 0,
    ) -> Any:  # fmt: skip
        return _seen(_one(page, side)).side.browse(asked, offset, shuffle)

    @app.get("/api/curve")
    def curve(side: Number = 0) -> Any:
        return _seen(_one(page, side)).curve.get()

    @app.get("/picture/{side}/{item}")
    def picture(
        side: Annotated[int, InPath(ge=0, le=1)], item: Annotated[int, InPath(ge=0, le=LARGEST_ID)],
        size: Literal["small", "large"] = "small",
    ) -> Response:  # fmt: skip
        try:
            found = _one(page, side).pictures.get(item, size)
        except UserError as error:
            raise HTTPException(404, str(error)) from None
        return Response(found.content, media_type=found.kind, headers={"cache-control": KEPT})


def _add_search(app: FastAPI, page: Page) -> None:
    @app.get("/api/search")
    def search(
        asked: Wanted, side: Number = 0,
        id: Annotated[int | None, Query(ge=0, le=LARGEST_ID)] = None,
        code: Annotated[str, Query(max_length=TEXT * 2)] = "",
    ) -> Any:  # fmt: skip
        for each in page.shown:
            _seen(each)
        if id is not None:
            _one(page, side)
            return search_by_id(page, side, id, asked)
        if not code:
            raise UserError("nothing was asked for; give an id or a code")
        return search_by_codes(page, read_codes(page, code), asked)

    @app.post("/api/search")
    async def upload(asked: Wanted, request: Request) -> Any:
        for each in page.shown:  # a mistake is told before the picture is looked at
            each.side.condition(asked)
        async with page.uploads.receive(request) as path:
            await run_in_threadpool(check_upload, path)
            started = time.perf_counter()
            waiting = submit(page, path)
            codes = [await _code(future, path) for future in waiting]
            coding = (time.perf_counter() - started) * 1e3
            found = await run_in_threadpool(_search_codes, page, codes, asked)
            return {**found, "coding_milliseconds": round(coding, 1)}


async def _code(waiting: "Future[Packed] | UserError", path: Path) -> Code:
    """A code, once it is there, or why there is none."""
    if isinstance(waiting, UserError):
        return waiting
    try:
        return await asyncio.wrap_future(waiting)
    except UserError as error:
        return UserError(reason(error, path))


def _search_codes(page: Page, codes: list[Code], asked: Asked) -> Any:
    for each in page.shown:
        _seen(each)
    return search_by_codes(page, codes, asked)


def _one(page: Page, number: int) -> Shown:
    if number >= len(page.shown):
        raise HTTPException(404, "the page shows one index")
    return page.shown[number]


def _seen(shown: Shown) -> Shown:
    """The index, with what others have written."""
    try:
        shown.side.refresh()
    except UserError as error:
        raise HTTPException(503, f"the index cannot be read: {error}") from None
    return shown


def _answer_errors(app: FastAPI) -> None:
    """Every error is one line in JSON."""

    def line(status: int, why: str, headers: Any = None) -> JSONResponse:
        return JSONResponse({"error": " ".join(why.split())}, status, headers)

    def on(kind: type[Exception], answer: Callable[[Request, Any], Response]) -> None:
        app.add_exception_handler(kind, answer)

    on(Busy, lambda _, error: line(503, str(error), {"retry-after": "1"}))
    on(UserError, lambda _, error: line(400, str(error)))
    on(AnyHTTPException, lambda _, error: line(error.status_code, str(error.detail), error.headers))
    on(RequestValidationError, lambda _, error: line(400, _first(error)))
    on(Exception, lambda _, error: line(500, "the page failed at this; its terminal says how"))


def _first(error: RequestValidationError) -> str:
    """The first of FastAPI's complaints, as a line."""
    found = error.errors()[0]
    came = f"{str(found.get('input'))[:60]!r}"
    return f"{found['loc'][-1]} is {came}: {found['msg'][:1].lower()}{found['msg'][1:]}"
