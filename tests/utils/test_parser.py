"""Wrong usage of a command is one line and status 2."""

import pytest

from utils.parser import OneLineParser


@pytest.mark.parametrize("arguments", [[], ["--count", "x"], ["--count", "1", "--other"]])
def test_wrong_usage_is_one_line_and_status_2(capsys, arguments):
    parser = OneLineParser(prog="python -m command")
    parser.add_argument("--count", type=int, required=True)
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(arguments)
    message = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message.startswith("error: ") and message.endswith("; see python -m command --help\n")
    assert message.count("\n") == 1
