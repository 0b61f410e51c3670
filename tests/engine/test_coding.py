"""The code of an image is its own: it does not depend on what is coded with it."""

import numpy as np
from small_config import make_config

from engine.coding import CPU_BATCH, encode
from engine.run import open_run


def test_outputs_of_an_image_are_bit_equal_alone_in_a_crowd_and_in_any_order(tmp_path):
    run = open_run(make_config(tmp_path))
    everything = np.arange(len(run.dataset.source))
    assert len(everything) > 2 * CPU_BATCH  # whole batches and a part of one
    together = encode(run, everything)
    shuffled = np.random.default_rng(0).permutation(everything)
    for indices in (shuffled, shuffled[:1], shuffled[: CPU_BATCH + 1]):
        found = encode(run, indices)
        np.testing.assert_array_equal(found.codes, together.codes[indices])
        np.testing.assert_array_equal(found.logits, together.logits[indices])
