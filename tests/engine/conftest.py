"""Most of the engine's tests want figures, not pictures, which take seconds a run."""

import pytest


def pytest_configure(config):
    config.addinivalue_line("markers", "pictures: the run draws its report and grid")


@pytest.fixture(autouse=True, scope="module")
def _without_pictures_in_module_fixtures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.evaluate.write_results", lambda run, scored: None)
        yield


@pytest.fixture(autouse=True)
def _with_pictures_where_marked(request, monkeypatch):
    if request.node.get_closest_marker("pictures"):
        from engine.report import write_results

        monkeypatch.setattr("engine.evaluate.write_results", write_results)
