"""A profile names every part of the step, and its trace is whole."""

import json

import pytest
from small_config import make_config

from engine.experiment import profile
from utils.errors import UserError


def test_the_trace_holds_the_steps_that_the_table_sums(tmp_path, capsys):
    profile(make_config(tmp_path / "run"))
    table = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    spans = ("batch", "forward", "losses", "backward", "optimizer")
    assert all(float(table[span][0]) > 0 for span in spans)
    assert table["as"][0] == "trained"
    assert float(table["as"][2]) > 0
    events = json.loads((tmp_path / "run" / "trace.json").read_text())["traceEvents"]
    for span in spans:
        durations = [e["dur"] for e in events if e.get("name") == span and "dur" in e]
        assert len(durations) == 10
        assert sum(durations) / 1e4 == pytest.approx(float(table[span][0]), abs=0.05, rel=0.05)


def test_a_shallow_method_has_no_steps(tmp_path):
    config = make_config(tmp_path)
    config.engine = "shallow"
    with pytest.raises(UserError, match="no training steps"):
        profile(config)
