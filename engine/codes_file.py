"""codes.npz in the making: what is coded is kept in parts beside it, until it is whole."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.image_list import ImageFiles
from retrieval.image_codes import ImageCodes, load_image_codes, save_image_codes
from utils.errors import UserError
from utils.folder_lock import locked

SUFFIX = ".npz"
_PART = "part-*" + SUFFIX


class CodesFile:
    """A file of codes of one model, and the parts of it that are done.

    Codes of the same files are taken over from an earlier file of its name, and from the parts
    that an interrupted command left.
    """

    def __init__(
        self, path: Path, code_length: int, model_digest: str, made_with: dict[str, Any]
    ) -> None:
        self.path = path
        self.folder = path.with_name(f"{path.name}.parts")
        self._empty = ImageCodes(
            codes=np.zeros((0, -(-code_length // 8)), dtype=np.uint8),
            names=np.zeros(0, dtype=np.str_),
            sizes=np.zeros(0, dtype=np.int64),
            mtimes_ns=np.zeros(0, dtype=np.int64),
            code_length=code_length,
            model_digest=model_digest,
            made_with=made_with,
        )
        self._known: dict[str, tuple[int, int, int]] = {}  # name -> size, time, row of its code
        self._codes = [self._empty.codes]
        self._rows = 0

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Take over what is done, and keep other commands from writing, within a block.

        Raises:
            UserError: the file or its parts are of another model or other images, the file is
                something else, another command is at them, or they cannot be written.
        """
        with ExitStack() as stack:
            with self._writing("choose another --output, or make room there"):
                self.folder.mkdir(parents=True, exist_ok=True)
                try:
                    stack.enter_context(locked(self.folder))
                except UserError as error:
                    raise UserError(
                        f"{self.path} is being written by another command; wait for it, or choose "
                        "another --output"
                    ) from error
            try:
                self._take_over()
                yield
            finally:
                if not any(self.folder.glob(_PART)):
                    shutil.rmtree(self.folder, ignore_errors=True)

    def missing(self, files: ImageFiles) -> list[str]:
        """Names of the files without a code, in order; a changed file has none."""
        known = self._known
        return [name for name, row in files.rows.items() if known.get(name, ())[:2] != row]

    def keep(self, files: ImageFiles, names: Sequence[str], codes: NDArray[np.uint8]) -> None:
        """Write the codes of some files as a part.

        Raises:
            UserError: it cannot be written.
        """
        if not names:
            return
        part = self._codes_of(files, names, codes)
        number = len(list(self.folder.glob(_PART)))
        with self._writing():
            save_image_codes(self.folder / _PART.replace("*", f"{number:06d}"), part)
        self._learn(part)

    def finish(self, files: ImageFiles) -> int:
        """Write the codes of all files that have one, in order; returns how many.

        Raises:
            UserError: it cannot be written.
        """
        names = [name for name, row in files.rows.items() if self._known.get(name, ())[:2] == row]
        rows = np.array([self._known[name][2] for name in names], dtype=np.int64)
        if names:
            codes = np.concatenate(self._codes)[rows]
            with self._writing():
                save_image_codes(self.path, self._codes_of(files, names, codes))
            shutil.rmtree(self.folder, ignore_errors=True)
        return len(names)

    def _take_over(self) -> None:
        if self.path.exists():
            try:
                found = load_image_codes(self.path)
            except UserError as error:
                raise UserError(
                    f"{self.path} is there already and holds no codes of images; remove it, or "
                    "choose another --output"
                ) from error
            self._check_same(found, f"{self.path} holds codes", "it")
            self._learn(found)
        for part in sorted(self.folder.glob(_PART)):
            found = load_image_codes(part)
            self._check_same(found, f"{self.folder} holds unfinished codes", "that folder")
            self._learn(found)

    def _check_same(self, found: ImageCodes, where: str, which: str) -> None:
        """Refuse codes that were made otherwise: they may have taken hours."""
        for what, theirs, ours in self._differences(found):
            raise UserError(
                f"{where} of another {what} ({theirs}, now {ours}); remove {which}, or choose "
                "another --output"
            )

    def _differences(self, other: ImageCodes) -> Iterator[tuple[str, Any, Any]]:
        """What decides a code and differs: its name, theirs and ours."""
        ours = self._empty
        if other.model_digest != ours.model_digest:
            yield "model", other.model_digest[:12], ours.model_digest[:12]
        if other.code_length != ours.code_length:
            yield "code length", other.code_length, ours.code_length
        for name in sorted(other.made_with.keys() | ours.made_with.keys()):
            theirs, own = other.made_with.get(name), ours.made_with.get(name)
            if theirs != own:
                yield name, theirs, own

    def _learn(self, codes: ImageCodes) -> None:
        columns = zip(
            codes.names.tolist(), codes.sizes.tolist(), codes.mtimes_ns.tolist(), strict=True
        )
        for row, (name, size, mtime) in enumerate(columns, self._rows):
            self._known[name] = (size, mtime, row)
        self._codes.append(codes.codes)
        self._rows += len(codes)

    def _codes_of(
        self, files: ImageFiles, names: Sequence[str], codes: NDArray[np.uint8]
    ) -> ImageCodes:
        table = np.array([files.rows[name] for name in names], dtype=np.int64).reshape(-1, 2)
        return replace(
            self._empty,
            codes=codes,
            names=np.array(names, dtype=np.str_),
            sizes=table[:, 0],
            mtimes_ns=table[:, 1],
        )

    @contextmanager
    def _writing(
        self,
        advice: str = "the codes so far are kept: make room there, and the same command goes on",
    ) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"{self.path} cannot be written ({reason}); {advice}") from error
