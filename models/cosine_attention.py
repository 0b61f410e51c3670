"""Attention by cosine to keys, which learns nothing."""

import torch
from torch import Tensor
from torch.nn import functional

SMALLEST = 1e-6  # of a power's base: its slope at 0 has no bound


def powered(inputs: Tensor, power: float) -> Tensor:
    """sign(x)·|x|^λ of inputs (B, d), Tukey's transformation.

    Below 1 it takes from the long tails of a backbone's pooled features (Yang, Liu & Xu, "Free
    Lunch for Few-Shot Learning: Distribution Calibration", ICLR 2021, which has λ = .5).
    """
    return inputs if power == 1 else inputs.sign() * inputs.abs().clamp(min=SMALLEST) ** power


def cosine_attention(
    inputs: Tensor,
    keys: Tensor,
    temperature: float,
    whiten: Tensor | None = None,
    less: Tensor | None = None,
) -> Tensor:
    """softmax(τ cos((x - m)W, (k_r - m)W) - b_r), (B, R), m being the mean of the keys.

    Args:
        inputs: (B, d). keys: (R, d).
        temperature: τ.
        whiten: W (d, d); none leaves it out.
        less: b (R,); none is 0.
    """
    centre = keys.mean(0)
    directions, targets = inputs - centre, keys - centre
    if whiten is not None:
        directions, targets = directions @ whiten, targets @ whiten
    scores = temperature * (functional.normalize(directions) @ functional.normalize(targets).T)
    return torch.softmax(scores if less is None else scores - less, dim=1)
