import numpy as np
import pytest


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The folder of an index of the digits, with pictures and a model that codes more."""
    page_client = pytest.importorskip("page_client", exc_type=ImportError)
    return page_client.digits_index(tmp_path_factory.mktemp("digits"))
