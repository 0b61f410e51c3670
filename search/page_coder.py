"""Codes of uploaded pictures: a few at a time, and the same as `search.query` gives each."""

import math
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Lock, Thread

import torch
from torch import Tensor, nn

from engine.coder import encode_files
from engine.open_model import Model
from search.coder import Coder, code_picture
from search.page_network import BATCH, frozen, near_zero
from search.store import Packed
from utils.cores import available_cores
from utils.errors import UserError

WAITING = 128  # pictures; who comes later is asked to try again
Answer = Packed | UserError


class Busy(UserError):
    """More is asked at once than the page takes."""


class QuickCoder:
    """Codes pictures in frozen graphs; whatever is within rounding of 0 by the coder itself.

    So codes are those that the coder gives each picture alone, bit for bit.
    """

    def __init__(self, coder: Coder) -> None:
        self.coder = coder
        options = coder.model.run.config.training_opt
        output = options.code_outputs[coder.code_length]
        self.network = frozen(coder.model.run.model, output, options.image_size)
        self.lock = Lock()  # the coder itself works for one at a time

    def code(self, paths: list[Path]) -> list[Answer]:
        """The packed code (1, bytes) of each picture of one folder, or why it has none."""
        watched = _Watched(self.network)
        names = [path.name for path in paths]
        model = _batch_model(self.coder, watched, len(paths))
        codes, unreadable = encode_files(model, paths[0].parent, names)
        unsure = near_zero(watched.mean())
        found: list[Answer] = []
        for row, path in enumerate(paths):
            if path.name in unreadable:
                found.append(UserError(unreadable[path.name]))
            elif unsure[row]:
                found.append(self._alone(path))
            else:
                found.append(codes[self.coder.code_length][row : row + 1])
        return found

    def _alone(self, path: Path) -> Answer:
        try:
            with self.lock:
                return code_picture(self.coder, path)
        except UserError as error:  # the file has changed since
            return error


class CodingQueue:
    """Threads, one a core, that code the pictures waiting, up to `BATCH` of them at once."""

    def __init__(self, coder: QuickCoder) -> None:
        self.coder = coder
        self.waiting: Queue[tuple[Path, Future[Packed]] | None] = Queue(WAITING)
        self.threads = [Thread(target=self._work, daemon=True) for _ in range(available_cores())]
        for thread in self.threads:
            thread.start()

    def submit(self, path: Path) -> "Future[Packed]":
        """The code (1, bytes) of a picture, to come; the file must stay until then.

        Raises:
            Busy: too many wait already.
        """
        future: Future[Packed] = Future()
        try:
            self.waiting.put_nowait((path, future))
        except Full:
            raise Busy(f"{WAITING} pictures are waiting to be coded; try again shortly") from None
        return future

    def close(self) -> None:
        """End the threads once they have done what waits."""
        for _ in self.threads:
            self.waiting.put(None)
        for thread in self.threads:
            thread.join()

    def _work(self) -> None:
        torch.set_num_threads(1)  # of this thread: the others have the other cores
        while (first := self.waiting.get()) is not None:
            tasks = [first, *self._more()]
            tasks = [task for task in tasks if task[1].set_running_or_notify_cancel()]
            try:
                answers = self.coder.code([path for path, _ in tasks]) if tasks else []
            except BaseException as error:  # whoever waits must hear of it
                for _, future in tasks:
                    future.set_exception(error)
                continue
            for (_, future), answer in zip(tasks, answers, strict=True):
                if isinstance(answer, UserError):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    def _more(self) -> list[tuple[Path, "Future[Packed]"]]:
        """This thread's share of what waits."""
        share = math.ceil((self.waiting.qsize() + 1) / len(self.threads))
        found: list[tuple[Path, Future[Packed]]] = []
        while len(found) < min(BATCH, share) - 1:
            try:
                task = self.waiting.get_nowait()
            except Empty:
                break
            if task is None:
                self.waiting.put(None)
                break
            found.append(task)
        return found


class _Watched(nn.Module):
    """A network that keeps what it gave, and gives it by the name of a run's codes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = (network,)  # no submodule: a frozen graph has no modes to switch
        self.given: list[Tensor] = []

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images (B, 3, S, S) → outputs (B, q)."""
        self.given.append(self._network[0](images))
        return {"codes": self.given[-1]}

    def mean(self) -> Tensor:
        """Over what it gave for one batch: for images and, where asked, their mirror images."""
        return torch.stack(self.given).mean(0)


def _batch_model(coder: Coder, network: nn.Module, count: int) -> Model:
    """The coder's model with another network, to code `count` images in one batch."""
    run = coder.model.run
    options = replace(
        run.config.training_opt, code_length=coder.code_length, evaluation_batch_size=count
    )
    config = replace(run.config, training_opt=options)
    return replace(coder.model, run=replace(run, config=config, model=nn.Sequential(network)))
