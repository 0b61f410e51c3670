"""TensorBoard events, whose writing never ends in a thread's traceback."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from torch.utils.tensorboard import SummaryWriter


@contextmanager
def event_writer(folder: Path) -> Iterator[SummaryWriter]:
    """A writer of events into `folder`, closed at the block's end.

    Raises:
        OSError: when they cannot be written, by the writer's next call or at the end; what the
            block raises goes first.
    """
    before = threading.excepthook
    threading.excepthook = _quiet
    try:
        writer = SummaryWriter(str(folder))
        try:
            yield writer
        except BaseException:
            with suppress(OSError):
                writer.close()
            raise
        writer.close()
    finally:
        threading.excepthook = before


def go_on_after(writer: SummaryWriter, step: int) -> None:
    """Let TensorBoard forget what was written of later steps, which a resumed run takes anew."""
    restart = Event(session_log=SessionLog(status=SessionLog.START))
    writer.file_writer.add_event(restart, step + 1)  # type: ignore[attr-defined]


def _quiet(arguments: threading.ExceptHookArgs) -> None:
    """Drop what the writer's thread raises: it keeps it too, for the next call to raise."""
    of_writer = type(arguments.thread).__name__ == "_AsyncWriterThread"
    if not (of_writer and isinstance(arguments.exc_value, OSError)):
        threading.__excepthook__(arguments)
