"""What can happen to a run that is right: no disk, no memory, no compiler; each told in a line."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from engine.config import RunConfig
from utils.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.EIO, errno.ENODEV, errno.ENXIO)
KEPT = "checkpoints in the run's folder are intact"


@contextmanager
def told_in_a_line(config: RunConfig) -> Iterator[None]:
    """Raise a UserError where a block fails for want of disk, memory or a compiler."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        told = explained(error, config)
        if told is None:
            raise
        raise told from error


def explained(error: Exception, config: RunConfig) -> UserError | None:
    """What to tell the user of an error in a line; None if it is of another kind."""
    text = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text:
        return _out_of_memory(error, text, config)
    if isinstance(error, OSError):
        return _file_error(error)
    if isinstance(error, RuntimeError) and re.search(r"\bC(\+\+)? compiler", text):
        other = ", or set training_opt.accelerate=none"
        return UserError(
            "a kernel could not be built, for want of a C compiler; install one (gcc) or name it "
            f"in the environment variable CC{other * (config.training_opt.accelerate != 'none')}"
        )
    return None


def _out_of_memory(error: Exception, text: str, config: RunConfig) -> UserError:
    options = config.training_opt
    where = "GPU memory" if isinstance(error, torch.OutOfMemoryError) else "memory"
    asked = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", text)
    precision = "" if options.precision == "bf16" else ", or set training_opt.precision=bf16"
    return UserError(
        f"out of {where}{f' (for {asked[1]})' if asked else ''}; lower training_opt.batch_size "
        f"({options.batch_size}) or image_size ({options.image_size}); if it was in validating, "
        f"coding or the memory, evaluation_batch_size ({options.evaluation_batch_size}){precision}"
    )


def _file_error(error: OSError) -> UserError | None:
    name = os.fsdecode(error.filename) if error.filename is not None else "a file"
    reason = error.strerror or os.strerror(error.errno or 0)
    if error.errno in FULL:
        return UserError(f"{name} cannot be written ({reason}); free space, then --resume: {KEPT}")
    if error.errno in REFUSED:
        return UserError(
            f"{name}: {reason}; correct its permissions or choose another folder: {KEPT}"
        )
    if error.errno in GONE:
        return UserError(f"{name}: {reason}; bring it back, then --resume: {KEPT}")
    return None
