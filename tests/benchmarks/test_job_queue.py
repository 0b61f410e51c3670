"""Jobs run one a device, in their order, and end when the time does."""

import time
from contextlib import closing

from benchmarks.job_queue import Job, JobQueue


def _job(name, code, *more, kind="k"):
    return Job(name, (kind,), [["-c", each] for each in (code, *more)], f"{name}.log")


def _statuses(queue):
    with closing(queue.run()) as ended:
        return {end.job.name: end.status for end in ended}


def test_each_job_runs_once_on_its_device_with_its_output_kept(tmp_path):
    code = "import os; print('on', os.environ['CUDA_VISIBLE_DEVICES'])"
    jobs = [_job(f"j{number}", code) for number in range(5)]
    assert _statuses(JobQueue(jobs, ["3", "7"], tmp_path)) == dict.fromkeys(
        (f"j{number}" for number in range(5)), 0
    )
    outputs = [path.read_text() for path in sorted(tmp_path.glob("*.log"))]
    assert len(outputs) == 5 and set(outputs) == {"on 3\n", "on 7\n"}


def test_two_devices_work_at_once(tmp_path):
    """Each of two waits for the other's file: one after another they would wait for ever."""
    wait = "import pathlib, time\npathlib.Path(r'{}').touch()\nother = pathlib.Path(r'{}')\nwhile not other.exists(): time.sleep(0.01)"  # noqa: E501
    a, b = tmp_path / "a", tmp_path / "b"
    jobs = [_job("one", wait.format(a, b)), _job("two", wait.format(b, a))]
    assert _statuses(JobQueue(jobs, ["0", "1"], tmp_path, 60)) == {"one": 0, "two": 0}


def test_a_failed_command_ends_its_job_and_no_other(tmp_path):
    jobs = [
        _job("bad", "print('first'); raise SystemExit(3)", "print('second')"),
        _job("good", "print('first')", "print('second')"),
    ]
    assert _statuses(JobQueue(jobs, [""], tmp_path)) == {"bad": 3, "good": 0}
    assert (tmp_path / "bad.log").read_text() == "first\n"
    assert (tmp_path / "good.log").read_text() == "first\nsecond\n"


def test_what_runs_is_stopped_with_its_children_when_the_time_is_up(tmp_path):
    mark = tmp_path / "mark"
    child = f"import time; time.sleep(3); open(r'{mark}', 'w')"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    started = time.monotonic()
    queue = JobQueue([_job("long", code), _job("next", "")], [""], tmp_path, 0.5)
    assert _statuses(queue) == {"long": None}
    assert time.monotonic() - started < 2.5
    assert [job.name for job in queue.waiting] == ["next"]
    time.sleep(3)
    assert not mark.exists()


def test_no_job_starts_that_would_likely_end_too_late(tmp_path):
    queue = JobQueue([_job("long", ""), _job("short", "", kind="s")], [""], tmp_path, 30)
    queue.lasted = {("k",): 40.0, ("s",): 1.0}
    assert _statuses(queue) == {"short": 0}
    assert [job.name for job in queue.waiting] == ["long"]


def test_a_job_is_judged_by_the_last_of_its_kind(tmp_path):
    wait = "import time; time.sleep(.5)"
    queue = JobQueue([_job("first", wait), _job("second", "")], [""], tmp_path, 30)
    queue.lasted = {("k",): 29.8}  # as of one that compiled kernels
    assert _statuses(queue) == {"first": 0, "second": 0}


def test_a_kind_that_has_not_run_is_judged_by_the_longest_of_all(tmp_path):
    queue = JobQueue([_job("unknown", "", kind="u")], [""], tmp_path, 30)
    queue.lasted = {("k",): 40.0, ("s",): 1.0}
    assert _statuses(queue) == {}


def test_closing_the_queue_stops_what_runs(tmp_path):
    queue = JobQueue([_job("quick", ""), _job("long", "import time; time.sleep(60)")], ["", ""],
                     tmp_path)  # fmt: skip
    started = time.monotonic()
    with closing(queue.run()) as ended:
        assert next(ended).job.name == "quick"
    assert not queue.running and time.monotonic() - started < 10
