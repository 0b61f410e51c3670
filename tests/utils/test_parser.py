"""Wrong usage of a command is one line and status 2."""

from argparse import ArgumentTypeError

import pytest

from utils.parser import OneLineParser, whole_number


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


@pytest.mark.parametrize(("text", "least", "number"), [("1", 1, 1), ("0", 0, 0), ("40", 1, 40)])
def test_whole_numbers_from_the_least_up_are_taken(text, least, number):
    assert whole_number(text, least) == number


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "one", "²"])
def test_anything_else_is_refused_with_what_came(text):
    with pytest.raises(ArgumentTypeError, match="from 1 up, not"):
        whole_number(text)
