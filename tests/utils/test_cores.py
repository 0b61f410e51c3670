"""Threads fit the cores that a process really has."""

import os

import pytest
import torch

from utils.cores import available_cores, use_available_cores


@pytest.fixture
def cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)


@pytest.mark.parametrize(
    ("content", "expected"),
    [("max 100000", 16), ("250000 100000", 2), ("50000 100000", 1), ("3200000 100000", 16)],
)
def test_a_containers_quota_is_seen(tmp_path, cores, content, expected):
    quota = tmp_path / "cpu.max"
    quota.write_text(content)
    assert available_cores(quota) == expected


def test_without_a_quota_the_cores_are_those_it_may_run_on(tmp_path, cores):
    assert available_cores(tmp_path / "absent") == 16


@pytest.mark.parametrize(("processes", "expected"), [("4", 4), ("32", 1)])
def test_processes_of_a_machine_share_its_cores(tmp_path, cores, monkeypatch, processes, expected):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    assert available_cores(tmp_path / "absent") == expected


def test_a_users_own_number_of_threads_is_kept(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr("utils.cores.available_cores", lambda: before + 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    use_available_cores()
    assert torch.get_num_threads() == before


def test_threads_are_cut_to_the_cores_and_never_raised(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        for cores, expected in ((8, 4), (3, 3)):
            monkeypatch.setattr("utils.cores.available_cores", lambda cores=cores: cores)
            use_available_cores()
            assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)
