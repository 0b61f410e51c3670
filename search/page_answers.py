"""Searches over all indexes of the page, by a picture of one of them or by codes."""

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from search.page_coder import Busy
from search.page_pictures import reason
from search.page_side import Asked, Row, mark_right
from search.page_state import Page, Shown, from_hex
from search.store import Packed
from utils.errors import UserError

Code = Packed | UserError  # of a query, or why an index has none
LONGEST = 60.0  # seconds that a search waits for a code


def search_by_id(page: Page, number: int, item: int, asked: Asked) -> Row:
    """The nearest images, in every index, of an image of the index `number`.

    Another index is asked with the code that it holds of the same path, else its model codes
    the picture.

    Raises:
        UserError: there is no such image, or the condition is none.
    """
    own = page.shown[number]
    (row,) = own.side.rows([item])
    path = own.side.index.rows([item])["path"][0].as_py()
    sides = []
    for each in page.shown:
        same = item if each is own else each.side.find_path(path)
        if same is not None:
            code: Code = each.side.index.codes([same])
        else:
            code = _code_indexed(own, each, item)
        sides.append(_answer(each, code, asked, same))
        mark_right(sides[-1].get("items", []), row["label"])
    return {"query": {"side": number, **row}, "sides": sides}


def search_by_codes(page: Page, codes: list[Code], asked: Asked) -> Row:
    """The nearest images of a code an index.

    Raises:
        UserError: the condition is none, or no index can be asked.
    """
    if all(isinstance(code, UserError) for code in codes):
        raise codes[0]  # type: ignore[misc]
    sides = [_answer(each, code, asked) for each, code in zip(page.shown, codes, strict=True)]
    texts = ["" if isinstance(code, UserError) else code.tobytes().hex() for code in codes]
    return {"query": {"code": ",".join(texts)}, "sides": sides}


def read_codes(page: Page, text: str) -> list[Code]:
    """The codes that the page's address states, one an index, joined by commas."""
    parts = text.split(",")
    if len(parts) != len(page.shown):
        raise UserError(
            f"{len(parts)} codes came for {len(page.shown)} indexes; the address is of another page"
        )
    return [_or_error(lambda: from_hex(part, each.side))  # noqa: B023 - called at once
            for part, each in zip(parts, page.shown, strict=True)]  # fmt: skip


def submit(page: Page, path: Path) -> list["Future[Packed] | UserError"]:
    """Have a picture coded for each index; those of one model share the work.

    Raises:
        Busy: too many pictures wait.
    """
    known: dict[int, Future[Packed]] = {}
    found: list[Future[Packed] | UserError] = []
    for each in page.shown:
        if each.queue is None:
            found.append(UserError(each.no_coder))
            continue
        if id(each.queue) not in known:
            known[id(each.queue)] = each.queue.submit(path)
        found.append(known[id(each.queue)])
    return found


def _code_indexed(own: Shown, other: Shown, item: int) -> Code:
    """The other index's code of a picture that it does not hold."""
    if other.queue is None:
        return UserError(f"this index does not hold the image, and {other.no_coder}")
    queue = other.queue

    def code() -> Packed:
        path = own.pictures.path(item)
        try:
            return queue.submit(path).result(LONGEST)
        except Busy:
            raise
        except UserError as error:
            raise UserError(reason(error, path)) from None

    return _or_error(code)


def _or_error(work: Callable[[], Packed]) -> Code:
    try:
        return work()
    except Busy:
        raise
    except UserError as error:
        return error


def _answer(shown: Shown, code: Code, asked: Asked, itself: int | None = None) -> dict[str, Any]:
    shown.side.condition(asked)  # a mistake in it is none of one index's
    if isinstance(code, UserError):
        return {"error": str(code), "items": []}
    return shown.side.nearest(code, asked, itself)
