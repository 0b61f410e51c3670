"""Events that cannot be written end the block in an OSError, with nothing else on the terminal."""

import resource

import pytest

from engine.event_writer import event_writer


@pytest.fixture
def full_disk():
    """Files may not grow: writing to them fails as on a full disk, with another errno."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told_once_and_by_no_thread(tmp_path, full_disk, capfd):
    with pytest.raises(OSError, match="File too large"), event_writer(tmp_path) as writer:
        for step in range(100):
            writer.add_scalar("loss", 1.0, step)
            writer.flush()
    assert capfd.readouterr().err == ""


def test_what_the_block_raises_goes_before_what_closing_does(tmp_path, monkeypatch):
    def fail():
        raise OSError("No space left on device")

    with pytest.raises(ZeroDivisionError), event_writer(tmp_path) as writer:
        monkeypatch.setattr(writer, "close", fail)
        raise ZeroDivisionError


def test_events_are_there_after_the_block(tmp_path):
    with event_writer(tmp_path) as writer:
        writer.add_scalar("loss", 1.0, 0)
    (path,) = tmp_path.iterdir()
    assert b"loss" in path.read_bytes()
