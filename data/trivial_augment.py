"""TrivialAugment of a whole batch on its own device: an operation of each image's own."""

import math
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from data.color_jitter import blend, brightness, contrast, saturation
from data.to_device import constant, upload

LEVELS = 31  # strengths of an operation, evenly spaced from none to its widest
_SHEAR = 0.99  # of the other coordinate
_SHIFT = 1 / 7  # of the side: the published 32 pixels, at 224
_TURN = math.radians(135)
_BLEND = 0.99  # factors of brightness, colour, contrast, sharpness: 1 ± this
_BITS = 6  # that posterising takes away


class Operation(IntEnum):
    """The fourteen operations of the wide search space."""

    IDENTITY = 0
    SHEAR_X = 1
    SHEAR_Y = 2
    TRANSLATE_X = 3
    TRANSLATE_Y = 4
    ROTATE = 5
    BRIGHTNESS = 6
    COLOR = 7
    CONTRAST = 8
    SHARPNESS = 9
    POSTERIZE = 10
    SOLARIZE = 11
    AUTOCONTRAST = 12
    EQUALIZE = 13


def trivial_augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Return (B, 3, S, S) pixels of 0..255, each image changed by one operation drawn for it.

    Operation, strength and sign are uniform: TrivialAugment (Müller & Hutter, ICCV 2021) with its
    wide space, as torchvision's `TrivialAugmentWide`; shifts are a share of the side.

    pixels: (B, 3, S, S) float32. generator: on the pixels' device.
    """
    count = len(pixels)
    operations = torch.randint(len(Operation), (count,), generator=_on_host(generator))

    def draw(end: int) -> Tensor:
        return torch.randint(end, (count,), generator=generator, device=pixels.device)

    levels, signs = draw(LEVELS), 2 * draw(2) - 1
    return change_images(pixels, operations, levels / (LEVELS - 1), signs)


def _on_host(generator: torch.Generator) -> torch.Generator:
    """The generator, or of a GPU's one for the host, which its seed and how far it is decide."""
    if generator.device.type == "cpu":
        return generator
    seed = generator.initial_seed() * 1_000_003 + generator.get_offset()
    return torch.Generator().manual_seed(seed % 2**63)


class _Draws(NamedTuple):
    """What is drawn for each image, (B,): operation, level in 0..1, sign."""

    operations: Tensor
    levels: Tensor
    signs: Tensor

    @property
    def amounts(self) -> Tensor:
        """Level and sign in one."""
        return self.levels * self.signs


def change_images(pixels: Tensor, operations: Tensor, levels: Tensor, signs: Tensor) -> Tensor:
    """Apply to each image (B, 3, S, S) of 0..255 its operation (B,), level in 0..1 and sign (B,).

    operations: on the CPU, so that each change gets its images alone and the host need not wait
        for a GPU to tell how many. The others are on the pixels' device.
    """
    order = upload(operations.argsort(), pixels.device)
    ends = operations.bincount(minlength=len(Operation)).cumsum(0).tolist()
    grouped = pixels[order]
    draws = [each[order] for each in (upload(operations, pixels.device), levels, signs)]
    changed = torch.empty_like(pixels)
    for first, last, change in _CHANGES:
        start, stop = ends[first - 1] if first else 0, ends[last]
        if start < stop:
            part = slice(start, stop)
            new = change(grouped[part], _Draws(*(each[part] for each in draws)))
            changed.index_copy_(0, order[part], new)
    return changed


def _keep(pixels: Tensor, draws: _Draws) -> Tensor:
    return pixels


def _move(pixels: Tensor, draws: _Draws) -> Tensor:
    """Shear about the upper left corner, shift, or turn about the centre; black moves in."""
    amounts = draws.amounts
    zero = torch.zeros_like(amounts)

    def only(operation: Operation, values: Tensor) -> Tensor:
        return torch.where(draws.operations == operation, values, zero)

    angle = only(Operation.ROTATE, _TURN * amounts)
    x_of_y = only(Operation.SHEAR_X, _SHEAR * amounts)
    y_of_x = only(Operation.SHEAR_Y, _SHEAR * amounts)
    side = pixels.shape[-1]
    shift = (side * _SHIFT * amounts).trunc() * (2 / side)  # whole pixels
    right, down = only(Operation.TRANSLATE_X, shift), only(Operation.TRANSLATE_Y, shift)
    # From the new place to the old one, in halves of the side from the centre.
    x = [angle.cos(), x_of_y - angle.sin(), x_of_y - right]
    y = [y_of_x + angle.sin(), angle.cos(), y_of_x - down]
    places = torch.stack([torch.stack(x, 1), torch.stack(y, 1)], 1)
    grid = functional.affine_grid(places, list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, grid, mode="nearest", align_corners=False)


def _brighten(pixels: Tensor, draws: _Draws) -> Tensor:
    return brightness(pixels, 1 + _BLEND * draws.amounts)


def _colour(pixels: Tensor, draws: _Draws) -> Tensor:
    return saturation(pixels, 1 + _BLEND * draws.amounts)


def _contrast(pixels: Tensor, draws: _Draws) -> Tensor:
    return contrast(pixels, 1 + _BLEND * draws.amounts)


def _sharpen(pixels: Tensor, draws: _Draws) -> Tensor:
    return blend(pixels, _smooth(pixels), 1 + _BLEND * draws.amounts)


def _smooth(pixels: Tensor) -> Tensor:
    """Pillow's SMOOTH filter: 3 x 3, the centre five times; the border stays."""
    kernel = constant(((1, 1, 1), (1, 5, 1), (1, 1, 1)), pixels.device).float() / 13
    inner = functional.conv2d(pixels, kernel.expand(3, 1, 3, 3), groups=3)
    smoothed = pixels.clone()
    smoothed[:, :, 1:-1, 1:-1] = inner
    return smoothed


def _posterise(pixels: Tensor, draws: _Draws) -> Tensor:
    step = torch.exp2(torch.round(_BITS * draws.levels)).view(-1, 1, 1, 1)
    return (pixels.round() / step).floor_().mul_(step)


def _solarise(pixels: Tensor, draws: _Draws) -> Tensor:
    tones = pixels.round()
    return torch.where(tones >= (255 * (1 - draws.levels)).view(-1, 1, 1, 1), 255 - tones, tones)


def _stretch(pixels: Tensor, draws: _Draws) -> Tensor:
    return _map_tones(pixels, _stretched)


def _equalise(pixels: Tensor, draws: _Draws) -> Tensor:
    return _map_tones(pixels, _equalised)


def _map_tones(pixels: Tensor, make_table: Callable[[Tensor], Tensor]) -> Tensor:
    """Give each channel the new tones (B, 3, 256) that are made of its histogram (B, 3, 256)."""
    tones = pixels.round().long().flatten(2)
    counts = torch.zeros(*tones.shape[:2], 256, dtype=torch.long, device=pixels.device)
    counts.scatter_add_(2, tones, counts.new_ones(1, 1, 1).expand_as(tones))
    table = make_table(counts).to(pixels.dtype)
    return table.gather(2, tones).view(pixels.shape)


def _stretched(counts: Tensor) -> Tensor:
    """The table that spreads the tones found (B, 3, 256) over 0..255; one tone stays as it is."""
    values = torch.arange(256, device=counts.device)
    found = counts > 0
    low = torch.where(found, values, 255).amin(2, keepdim=True)
    high = torch.where(found, values, 0).amax(2, keepdim=True)
    spread = (values - low).clamp(min=0) * 255 // (high - low).clamp(min=1)
    return torch.where(high > low, spread.clamp(max=255), values)


def _equalised(counts: Tensor) -> Tensor:
    """The table that evens out a histogram (B, 3, 256), as Pillow's `ImageOps.equalize`."""
    values = torch.arange(256, device=counts.device)
    high = torch.where(counts > 0, values, 0).amax(2, keepdim=True)
    step = (counts.sum(2, keepdim=True) - counts.gather(2, high)) // 255
    below = counts.cumsum(2) - counts
    table = (below + step // 2) // step.clamp(min=1)
    return torch.where(step > 0, table.clamp(max=255), values)


_CHANGES = (  # of the operations from the first to the last
    (Operation.IDENTITY, Operation.IDENTITY, _keep),
    (Operation.SHEAR_X, Operation.ROTATE, _move),
    (Operation.BRIGHTNESS, Operation.BRIGHTNESS, _brighten),
    (Operation.COLOR, Operation.COLOR, _colour),
    (Operation.CONTRAST, Operation.CONTRAST, _contrast),
    (Operation.SHARPNESS, Operation.SHARPNESS, _sharpen),
    (Operation.POSTERIZE, Operation.POSTERIZE, _posterise),
    (Operation.SOLARIZE, Operation.SOLARIZE, _solarise),
    (Operation.AUTOCONTRAST, Operation.AUTOCONTRAST, _stretch),
    (Operation.EQUALIZE, Operation.EQUALIZE, _equalise),
)
