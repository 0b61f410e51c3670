"""Codes of uploaded pictures are those that `search.query` gives each of them alone."""

import threading

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("faiss")

from search import page_coder
from search.coder import code_picture, query_coder
from search.index import open_index
from search.page_coder import WAITING, Busy, CodingQueue, QuickCoder
from search.page_network import BATCH
from utils.errors import UserError


@pytest.fixture(scope="module")
def coder(digits):
    return query_coder(open_index(digits).coding)


@pytest.fixture(scope="module")
def quick(coder):
    return QuickCoder(coder)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Pictures of many sizes, kinds and contents."""
    folder, rng, found = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0), []
    for number in range(60):
        size = (int(rng.integers(1, 60)), int(rng.integers(1, 60)))
        path = folder / f"{number}.{('png', 'jpg', 'webp')[number % 3]}"
        blocks = rng.integers(0, 2, (4, 4, 3), dtype=np.uint8) * 255
        Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).save(path)
        found.append(path)
    return found


def test_codes_are_the_coders_own_in_batches_of_every_size(coder, quick, pictures):
    wanted = [code_picture(coder, path) for path in pictures]
    assert len({code.tobytes() for code in wanted}) > 20
    for size in range(1, BATCH + 1):
        for start in range(0, len(pictures), size):
            found = quick.code(pictures[start : start + size])
            for code, own in zip(found, wanted[start:], strict=False):
                assert (code == own).all()


def test_through_the_queue_each_picture_gets_its_own_code(coder, quick, pictures):
    queue = CodingQueue(quick)
    futures = [queue.submit(path) for path in pictures]
    for path, future in zip(pictures, futures, strict=True):
        assert (future.result(60) == code_picture(coder, path)).all()
    queue.close()
    assert not any(thread.is_alive() for thread in queue.threads)


def test_whatever_is_near_zero_is_coded_by_the_coder(coder, quick, pictures, monkeypatch):
    monkeypatch.setattr(quick, "network", lambda images: images.flatten(1)[:, :32] * 0)
    found = quick.code(pictures[:3])
    assert all((code == code_picture(coder, path)).all()
               for code, path in zip(found, pictures[:3], strict=True))  # fmt: skip


def test_what_is_no_picture_has_a_reason_and_the_others_their_codes(coder, quick, pictures):
    bad = pictures[0].with_name("bad.png")
    bad.write_text("no picture")
    first, second, third = quick.code([pictures[1], bad, pictures[2]])
    assert isinstance(second, UserError)
    assert "bad.png" in str(second)
    assert (first == code_picture(coder, pictures[1])).all()
    assert (third == code_picture(coder, pictures[2])).all()


def test_of_several_code_lengths_it_gives_the_one_asked_for(digits, pictures):
    from dataclasses import replace

    coder = query_coder(open_index(digits).coding)
    model, run = coder.model, coder.model.run
    options = replace(run.config.training_opt, code_length=[32, 16])

    class TwoLengths(type(run.model)):
        def forward(self, images):
            found = super().forward(images)
            return {"codes_32": found["codes"], "codes_16": -found["codes"][:, :16]}

    two = TwoLengths(*run.model)
    several = replace(run, config=replace(run.config, training_opt=options), model=two)
    coder.model, coder.code_length = replace(model, run=several), 16
    (found,) = QuickCoder(coder).code(pictures[:1])
    assert found.shape == (1, 2)
    assert (found == code_picture(coder, pictures[0])).all()


class Held:
    """A coder that answers when it is let go."""

    def __init__(self):
        self.go = threading.Event()

    def code(self, paths):
        self.go.wait(30)
        if any(path == "fails" for path in paths):
            raise RuntimeError("broken")
        return [np.zeros((1, 4), np.uint8) for _ in paths]


def test_more_pictures_than_may_wait_are_refused(monkeypatch):
    held = Held()
    queue = CodingQueue(held)
    accepted = []
    with pytest.raises(Busy, match="try again"):
        for _ in range(WAITING + len(queue.threads) * BATCH + 1):
            accepted.append(queue.submit("picture"))
    assert len(accepted) >= WAITING
    held.go.set()
    assert all(future.result(30).shape == (1, 4) for future in accepted)
    queue.close()


def test_a_failure_is_told_to_whom_it_concerns_and_the_threads_go_on(monkeypatch):
    monkeypatch.setattr(page_coder, "available_cores", lambda: 1)
    held = Held()
    held.go.set()
    queue = CodingQueue(held)
    with pytest.raises(RuntimeError, match="broken"):
        queue.submit("fails").result(30)
    assert queue.submit("picture").result(30).shape == (1, 4)
    queue.close()


def test_a_cancelled_picture_is_passed_over(monkeypatch):
    monkeypatch.setattr(page_coder, "available_cores", lambda: 1)
    held = Held()
    queue = CodingQueue(held)
    first, second = queue.submit("picture"), queue.submit("picture")
    while queue.waiting.qsize() > 1:
        pass
    second.cancel()
    held.go.set()
    assert first.result(30).shape == (1, 4)
    queue.close()
