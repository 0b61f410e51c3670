"""A model that codes images for an index, and the images of an index."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.coder import encode_files
from engine.coding import coding_block
from engine.open_model import open_model
from search.store import Coding, Index, Packed
from utils.errors import UserError

QUERY_OPTIONS = {"device": "cpu", "evaluation_batch_size": 1, "num_workers": 0}
CHUNK = 1024  # images that are coded, then added, at a time


class Coder:
    """A published folder, a run's folder or a checkpoint, ready to code images.

    Args:
        checkpoint: which.
        code_length: bits of a code, of a model that gives several; None for its only ones.
        options: training options in place of the model's, such as device.

    Raises:
        UserError: there is no such model, or it gives no codes of that length.
    """

    def __init__(
        self, checkpoint: str, code_length: int | None = None, options: dict[str, Any] | None = None
    ) -> None:
        self.checkpoint = str(Path(checkpoint).resolve())
        self.model = open_model(checkpoint, options=options)
        lengths = self.model.run.config.training_opt.code_lengths
        if code_length is None and len(lengths) > 1:
            raise UserError(
                f"{checkpoint} gives codes of {', '.join(map(str, lengths))} bits; choose by "
                "--code_length"
            )
        self.code_length = code_length or lengths[0]
        if self.code_length not in lengths:
            raise UserError(
                f"{checkpoint} gives codes of {', '.join(map(str, lengths))} bits, not of "
                f"{self.code_length}; name the model that made the index's codes"
            )
        self.digest = self.model.digest

    def coding(self, image_root: str) -> Coding:
        """What an index of this model's codes says of them."""
        checkpoint = self.model.checkpoint
        return Coding(
            self.code_length,
            self.digest,
            self.checkpoint,
            image_root,
            class_names=tuple(checkpoint.get("class_names") or ()),
            class_counts=tuple(checkpoint.get("class_counts") or ()),
        )

    def chunks(self, count: int) -> Iterator[slice]:
        """Stretches of `count` images, of whole batches each, the last filled up."""
        block = coding_block(self.model.run)
        step = block * max(1, CHUNK // block)
        return (slice(start, start + step) for start in range(0, count, step))

    def code(self, root: Path, names: Sequence[str]) -> tuple[Packed, dict[str, str]]:
        """Packed codes of the files `root`/name (n, bytes), and name → why of the unreadable."""
        codes, unreadable = encode_files(self.model, root, names)
        return codes[self.code_length], unreadable


def query_coder(coding: Coding, checkpoint: str | None = None) -> Coder:
    """A coder of single pictures on the CPU, by the model that an index names.

    A picture goes through the networks alone: batches of the size that coded the index would take
    as long as 32 pictures, and differ in bits only whose output is 0 but for rounding.

    Raises:
        UserError: the index names no model, or `checkpoint` is another one.
    """
    place = checkpoint or coding.checkpoint
    if not place:
        raise UserError("the index does not say which model made its codes; give --checkpoint")
    coder = Coder(place, coding.code_length, QUERY_OPTIONS)
    coding.check_model(coder.digest)
    return coder


def code_picture(coder: Coder, path: Path) -> Packed:
    """The packed code (1, bytes) of a picture.

    Raises:
        UserError: it cannot be read.
    """
    codes, unreadable = coder.code(path.parent, [path.name])
    if unreadable:
        raise UserError(next(iter(unreadable.values())))
    return codes


def picture_path(index: Index, path: str | None) -> Path | None:
    """Where the picture of a row lies; None where the index does not know."""
    if not path or not (index.coding.image_root or Path(path).is_absolute()):
        return None
    return Path(index.coding.image_root, path)
