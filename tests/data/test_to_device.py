import numpy as np
import torch

from data.to_device import constant, upload, with_index

CPU = torch.device("cpu")


def test_constants_are_made_once_and_are_usable_outside_of_inference():
    with torch.inference_mode():
        made = constant(((1, 2), (3, 4.5)), CPU)
    assert made.tolist() == [[1, 2], [3, 4.5]] and made.dtype == torch.float32
    assert constant(((1, 2), (3, 4.5)), CPU) is made and not made.is_inference()


def test_uploads_keep_values_and_kinds():
    for values in (np.arange(5), np.zeros((0, 3), dtype=np.uint8), torch.rand(4)):
        found = upload(values, CPU)
        assert torch.equal(found, torch.as_tensor(values))
    assert with_index("cpu") == CPU
    assert with_index(torch.device("cuda", 1)) == torch.device("cuda:1")
