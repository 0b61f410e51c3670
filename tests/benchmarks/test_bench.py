"""What measures share is measured once."""

import pytest

from benchmarks import bench


def test_shared_work_is_done_once_and_fails_once(tmp_path):
    shared = bench.Bench(options=None, device=None, folder=tmp_path)
    calls = []

    def work():
        calls.append(1)
        return 7

    def fail():
        calls.append(1)
        raise ValueError("why")

    assert [shared.once(("a",), work), shared.once(("a",), work)] == [7, 7]
    with pytest.raises(ValueError, match="why"):
        shared.once(("b",), fail)
    with pytest.raises(RuntimeError, match="as before: why"):
        shared.once(("b",), fail)
    assert len(calls) == 2
