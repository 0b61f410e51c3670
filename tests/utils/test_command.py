"""Each way in which a command may end has its status and one line."""

import errno
import os
import signal

import pytest
import torch

from utils.command import exit_status
from utils.errors import UserError
from utils.stop_signals import Stopped


def ends(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize("status", [0, 1])
def test_the_works_own_status_is_kept_without_a_word(status, capsys):
    assert exit_status(lambda: status, "") == status
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("k is 0, expected 1 or more"), "k is 0, expected 1 or more"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left"),
        (OSError("of two\nlines"), "of two lines"),
        (torch.cuda.OutOfMemoryError(), "out of GPU memory"),
    ],
)
def test_mistakes_and_refusals_are_one_line_and_status_2(error, line, capsys):
    assert exit_status(ends(error), "") == 2
    (found,) = capsys.readouterr().err.splitlines()
    assert found.startswith("error: ")
    assert line in found


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_gives_its_status_and_says_what_stays(number, status, capsys):
    assert exit_status(ends(Stopped(number)), "all is kept") == status
    assert capsys.readouterr().err == "interrupted; all is kept\n"


def test_other_errors_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        exit_status(ends(ZeroDivisionError()), "")
