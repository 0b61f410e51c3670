"""Random codes and labels for the tests of retrieval."""

import numpy as np
import pytest


@pytest.fixture
def make_case():
    """Builder of one retrieval problem: ±1 codes and labels of queries and database."""

    def build(queries=5, database=40, bits=8, classes=4, multi=False, seed=0):
        generator = np.random.default_rng(seed)
        codes = [
            generator.choice(np.array([-1, 1], np.int8), (n, bits)) for n in (queries, database)
        ]
        if multi:
            labels = [
                (generator.random((n, classes)) < 0.4).astype(int) for n in (queries, database)
            ]
        else:
            labels = [generator.integers(0, classes, n) for n in (queries, database)]
        return codes[0], codes[1], labels[0], labels[1]

    return build
