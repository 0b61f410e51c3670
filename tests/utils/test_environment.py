import os
import platform
import shutil
import subprocess

import pytest
import torch

from utils import environment
from utils.environment import COMMIT_VARIABLE, commit

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder of its own, without a history."""
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "utils" / "environment.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return tmp_path


def git(folder, *arguments):
    command = ["git", "-C", str(folder), "-c", "user.name=A", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@needs_git
def test_commit_is_the_head_with_a_plus_when_a_tracked_file_differs(project, monkeypatch):
    monkeypatch.setenv(COMMIT_VARIABLE, "the history goes first")
    git(project, "init", "-q")
    (project / "main.py").write_text("1")
    git(project, "add", "main.py")
    git(project, "commit", "-q", "-m", "first")
    head = git(project, "rev-parse", "HEAD")[:12]
    (project / "untracked.txt").write_text("log")
    assert commit() == head
    (project / "main.py").write_text("2")
    assert commit() == head + "+"


@needs_git
def test_without_a_history_the_variable_names_the_commit(project, monkeypatch):
    monkeypatch.setenv(COMMIT_VARIABLE, "0123456789ab")
    assert commit() == "0123456789ab"


def test_without_git_the_variable_names_the_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(COMMIT_VARIABLE, "0123456789ab")
    assert commit() == "0123456789ab"


def test_without_git_and_variable_the_commit_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(COMMIT_VARIABLE, raising=False)
    assert commit() == "unknown"


def test_the_record_names_versions_hardware_and_commit():
    record = environment.environment(torch.device("cpu"))
    assert record["python"] == platform.python_version()
    assert record["torch"] == torch.__version__
    assert record["gpu"] == ""
    assert record["cpu"]
    assert record["cpu_count"] == os.cpu_count()
    assert record["commit"] == commit()
