import io
import logging
import sys
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.log import NAME, log_to_file, start_logging


@pytest.fixture(autouse=True)
def fresh_logger(monkeypatch):
    """The project's logger as a new process finds it."""
    logger = logging.getLogger(NAME)
    for name, value in (("handlers", []), ("propagate", True), ("level", logging.NOTSET)):
        monkeypatch.setattr(logger, name, value)
    yield logger
    logger.manager._clear_cache()  # of what isEnabledFor() answered


def test_messages_go_to_the_terminal_once_however_often_logging_is_started(capsys):
    start_logging()
    start_logging().info("epoch %d", 3)
    captured = capsys.readouterr()
    assert captured.err.count("epoch 3") == 1
    assert captured.out == ""


def test_a_terminal_that_was_replaced_gets_what_comes_after(monkeypatch):
    first, second = io.StringIO(), io.StringIO()
    for terminal in (first, second):
        monkeypatch.setattr(sys, "stderr", terminal)
        start_logging().info("to the terminal of now")
    assert first.getvalue().count("of now") == second.getvalue().count("of now") == 1


def test_messages_before_and_inside_the_block_are_appended_to_the_file(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("earlier run\n")
    logger = start_logging()
    logger.info("before")
    with log_to_file(path):
        logger.info("MAP ±%.2f", 0.25)
    logger.info("after")
    first, *lines = path.read_text(encoding="utf-8").splitlines()
    assert first == "earlier run"
    assert [line.split(maxsplit=2)[2] for line in lines] == ["before", "MAP ±0.25"]


def test_each_of_two_runs_gets_the_messages_before_its_own_file(tmp_path):
    logger = start_logging()
    for name in ("one", "two"):
        logger.info("weights of %s", name)
        with log_to_file(tmp_path / name):
            logger.info("epoch of %s", name)
    for name in ("one", "two"):
        lines = (tmp_path / name).read_text().splitlines()
        assert [line.split(maxsplit=2)[2] for line in lines] == [
            f"weights of {name}",
            f"epoch of {name}",
        ]


def test_a_process_without_a_file_keeps_a_bounded_number_of_messages(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.log.MOST_KEPT", 3)
    logger = start_logging()
    for number in range(5):
        logger.info("%d", number)
    with log_to_file(tmp_path / "log.txt"):
        pass
    assert [line[-1] for line in (tmp_path / "log.txt").read_text().splitlines()] == ["2", "3", "4"]


def test_messages_inside_the_block_still_reach_the_terminal_once(tmp_path, capsys):
    logger = start_logging()
    with log_to_file(tmp_path / "log.txt"):
        logger.info("both places")
    captured = capsys.readouterr()
    assert (captured.err + captured.out).count("both places") == 1


def test_an_exception_closes_the_file_and_takes_it_off_the_logger(tmp_path):
    logger = start_logging()
    before = list(logger.handlers)
    with pytest.raises(ZeroDivisionError), log_to_file(tmp_path / "log.txt"):
        file_handler = next(h for h in logger.handlers if isinstance(h, logging.FileHandler))
        raise ZeroDivisionError
    assert logger.handlers == before
    assert file_handler.stream is None


def test_two_files_at_once_both_get_the_message(tmp_path):
    logger = start_logging()
    with log_to_file(tmp_path / "a.txt"), log_to_file(tmp_path / "b.txt"):
        logger.info("shared")
    assert all("shared" in (tmp_path / name).read_text() for name in ("a.txt", "b.txt"))


def test_a_full_disk_ends_the_run_in_one_line(capsys):
    logger = start_logging()
    words = r"/dev/full cannot be written \(No space left"
    with pytest.raises(UserError, match=words), log_to_file(Path("/dev/full")):
        logger.info("epoch 1")
        pytest.fail("the run went on")
    assert "Traceback" not in capsys.readouterr().err
