"""GIST: a scene's energy by scale, orientation and place (Oliva & Torralba, IJCV 2001)."""

import math

import torch
from torch import Tensor, nn

from utils.errors import UserError

SCALES = 4
ORIENTATIONS = 8
BLOCKS = 4  # a side of the grid over which responses are averaged
MARGIN = 32  # pixels that the image is mirrored by at each side before it is filtered
PREFILTER_MARGIN = 5
PREFILTER_CYCLES = 4.0  # an image; the prefilter takes coarser structure away
FINEST_FREQUENCY = 0.3  # cycles a pixel
SCALE_STEP = 1.85
CPU_IMAGES = 8  # at a time on a CPU: what fits its cache


class Gist(nn.Module):
    """Average magnitude of Gabor responses in each block of a 4×4 grid: 512 numbers.

    As the authors' program: grey = mean of the channels, stretched to 0..255; local contrast
    normalisation; 4 scales × 8 orientations of Gabor filters, applied in the Fourier domain to
    the mirrored image. Output order: scale (fine to coarse), orientation, row, column.

    Maps images (B, 3, S, S), pixels in [0, 1], to (B, 512) float32, S being `image_size`.
    Frequencies are in cycles a pixel: the same picture at another size has another GIST.
    """

    mean = (0.0, 0.0, 0.0)
    std = (1.0, 1.0, 1.0)
    out_features = SCALES * ORIENTATIONS * BLOCKS * BLOCKS

    def __init__(self, image_size: int, prefilter: bool = True) -> None:
        super().__init__()
        if image_size < 1 or image_size % BLOCKS:
            raise UserError(f"GIST: image_size is {image_size}; give a multiple of {BLOCKS}")
        self.image_size = image_size
        self.prefilter = prefilter
        self.low_pass: Tensor
        low = low_pass(image_size + 2 * PREFILTER_MARGIN)
        self.register_buffer("low_pass", low, persistent=False)
        self.gabor: Tensor
        self.register_buffer("gabor", gabor_filters(image_size + 2 * MARGIN), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(f"images of shape {tuple(images.shape)}, not {self.image_size} a side")
        together = len(images) if images.is_cuda else CPU_IMAGES
        with torch.autocast(images.device.type, enabled=False):
            return torch.cat([self._describe(part) for part in images.float().split(together)])

    def _describe(self, images: Tensor) -> Tensor:
        grey = stretch(images.mean(1))
        if self.prefilter:
            grey = normalise_contrast(grey, self.low_pass)
        spectrum = torch.fft.fft2(mirror(grey, MARGIN))
        return torch.stack([self._energy(spectrum, each) for each in self.gabor], 1).flatten(1)

    def _energy(self, spectrum: Tensor, gabor: Tensor) -> Tensor:
        """Mean magnitude of one filter's response in each block: (B, 4, 4)."""
        inner = slice(MARGIN, -MARGIN)
        columns = torch.fft.ifft(spectrum * gabor, dim=1)[:, inner]  # the margin is not needed
        magnitude = torch.fft.ifft(columns, dim=2)[:, :, inner].abs()
        side = self.image_size // BLOCKS
        return magnitude.unflatten(2, (BLOCKS, side)).unflatten(1, (BLOCKS, side)).mean((2, 4))


def stretch(grey: Tensor) -> Tensor:
    """Each image (B, S, S) moved and scaled to 0..255; an even one becomes 0."""
    low, high = grey.amin((1, 2), keepdim=True), grey.amax((1, 2), keepdim=True)
    return 255 * (grey - low) / (high - low).clamp_min(torch.finfo(grey.dtype).tiny)


def normalise_contrast(grey: Tensor, low_pass: Tensor) -> Tensor:
    """The prefilter: log, less its low frequencies, divided by 0.2 + its local deviation.

    grey: (B, S, S) in 0..255. low_pass: (S + 10, S + 10).
    """
    image = mirror(torch.log1p(grey), PREFILTER_MARGIN)
    detail = image - torch.fft.ifft2(torch.fft.fft2(image) * low_pass).real
    deviation = torch.fft.ifft2(torch.fft.fft2(detail**2) * low_pass).abs().sqrt()
    inner = slice(PREFILTER_MARGIN, -PREFILTER_MARGIN)
    return (detail / (0.2 + deviation))[:, inner, inner]


def mirror(images: Tensor, margin: int) -> Tensor:
    """Images (B, S, S) with `margin` pixels mirrored on at each side, the border pixel repeated."""
    side = images.shape[-1]
    index = torch.arange(-margin, side + margin, device=images.device) % (2 * side)
    index = torch.minimum(index, 2 * side - 1 - index)
    return images[:, index][:, :, index]


def low_pass(side: int) -> Tensor:
    """Gaussian transfer function (side, side) that halves PREFILTER_CYCLES cycles an image."""
    x, y = frequencies(side)
    return torch.exp(-(x**2 + y**2) * math.log(2) / PREFILTER_CYCLES**2).float()


def gabor_filters(side: int) -> Tensor:
    """Transfer functions (32, side, side) of the filters, finest scale first.

    exp(-3.5 (f / f_s - 1)² - 2π w θ²) at radial frequency f and angle θ from the filter's
    orientation, with w = 16·8²/32².
    """
    x, y = frequencies(side)
    radius, angle = torch.hypot(x, y) / side, torch.atan2(y, x)
    filters = []
    for scale in range(SCALES):
        frequency = FINEST_FREQUENCY / SCALE_STEP**scale
        radial = 3.5 * (radius / frequency - 1) ** 2
        for orientation in range(ORIENTATIONS):
            turned = angle + math.pi * orientation / ORIENTATIONS
            turned = torch.remainder(turned + math.pi, 2 * math.pi) - math.pi
            width = 16 * ORIENTATIONS**2 / 32**2
            filters.append(torch.exp(-radial - 2 * math.pi * width * turned**2))
    return torch.stack(filters).float()


def frequencies(side: int) -> tuple[Tensor, Tensor]:
    """Cycles an image along x and y of each place of a discrete Fourier transform, float64."""
    cycles = torch.fft.fftfreq(side, 1 / side, dtype=torch.float64)
    y, x = torch.meshgrid(cycles, cycles, indexing="ij")
    return x, y


def create_model(image_size: int, prefilter: bool = True) -> Gist:
    """Build the (parameterless) network; `prefilter=False` leaves out contrast normalisation."""
    return Gist(image_size, prefilter)
