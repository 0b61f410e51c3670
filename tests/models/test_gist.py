import numpy as np
import pytest
import torch

from models import gist
from models.gist import BLOCKS, ORIENTATIONS, SCALES, create_model
from utils.errors import UserError


def plain_gist(image, prefilter=True):
    """One image (3, S, S) in [0, 1], filter by filter, by NumPy in double precision."""
    grey = image.mean(0)
    grey = 255 * (grey - grey.min()) / (grey.max() - grey.min())
    side = len(grey)
    if prefilter:
        padded = np.pad(np.log(grey + 1), 5, "symmetric")
        low = np.empty(padded.shape)
        for i, fy in enumerate(np.fft.fftfreq(len(padded), 1 / len(padded))):
            for j, fx in enumerate(np.fft.fftfreq(len(padded), 1 / len(padded))):
                low[i, j] = np.exp(-(fx**2 + fy**2) / (4 / np.sqrt(np.log(2))) ** 2)
        detail = padded - np.fft.ifft2(np.fft.fft2(padded) * low).real
        local = np.sqrt(np.abs(np.fft.ifft2(np.fft.fft2(detail**2) * low)))
        grey = (detail / (0.2 + local))[5 : 5 + side, 5 : 5 + side]
    padded = np.pad(grey, 32, "symmetric")
    spectrum = np.fft.fft2(padded)
    cycles = np.fft.fftfreq(len(padded))
    numbers = []
    for scale in range(4):
        for orientation in range(8):
            transfer = np.empty(padded.shape)
            for i, fy in enumerate(cycles):
                for j, fx in enumerate(cycles):
                    angle = np.angle(fx + 1j * fy) + np.pi * orientation / 8
                    angle -= 2 * np.pi * (angle > np.pi)
                    ratio = np.hypot(fx, fy) / (0.3 / 1.85**scale)
                    transfer[i, j] = np.exp(-3.5 * (ratio - 1) ** 2 - 2 * np.pi * angle**2)
            response = np.abs(np.fft.ifft2(spectrum * transfer))[32:-32, 32:-32]
            for rows in np.split(response, 4):
                numbers += [block.mean() for block in np.split(rows, 4, axis=1)]
    return np.array(numbers)


def pictures(count, side, seed=0):
    """Random pictures with structure at every scale."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(count, 3, side, side)
    for cells in (2, 4, 8, side):
        drawn = torch.rand(count, 3, cells, cells, generator=generator)
        total += torch.nn.functional.interpolate(drawn, (side, side), mode="bilinear")
    return total / 4


def by_place(features):
    return features.unflatten(1, (SCALES, ORIENTATIONS, BLOCKS, BLOCKS))


@pytest.mark.parametrize(("side", "prefilter"), [(16, False), (20, True)])
def test_it_is_the_plain_computation(side, prefilter):
    images = pictures(2, side)
    found = create_model(side, prefilter)(images)
    assert found.shape == (2, 512) and found.dtype == torch.float32
    for image, features in zip(images.double().numpy(), found, strict=True):
        np.testing.assert_allclose(features, plain_gist(image, prefilter), rtol=2e-4, atol=2e-5)


def test_a_grating_answers_as_its_formula_says():
    # A cosine that its mirror images continue: its spectrum is three lines.
    side, cycles = 32, 4
    phase = 2 * np.pi * cycles * (np.arange(side) + 0.5) / side
    wave = np.cos(phase)
    image = torch.from_numpy(np.broadcast_to(wave, (1, 3, side, side)).copy()).float()
    found = by_place(create_model(side, prefilter=False)(image))[0]
    scale = 255 / np.ptp(wave)
    level = -scale * wave.min()
    for s in range(SCALES):
        radial = np.exp(-3.5 * (cycles / side / (0.3 / 1.85**s) - 1) ** 2)
        for o in range(ORIENTATIONS):
            ahead = np.exp(-2 * np.pi * (np.pi * o / 8) ** 2)
            behind = np.exp(-2 * np.pi * (np.pi * (8 - o) / 8) ** 2)
            lines = ahead * np.exp(1j * phase) + behind * np.exp(-1j * phase)
            response = np.abs(level * np.exp(-3.5) * ahead + scale / 2 * radial * lines)
            expected = response.reshape(BLOCKS, -1).mean(1)
            for row in found[s, o]:
                np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-4)


def test_a_grating_is_strongest_at_its_own_scale_and_orientation():
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    for scale in range(SCALES):
        for orientation in range(ORIENTATIONS):
            angle = -np.pi * orientation / ORIENTATIONS
            along = x * np.cos(angle) + y * np.sin(angle)
            wave = torch.cos(2 * np.pi * 0.3 / 1.85**scale * along)
            energy = by_place(create_model(64)(wave.expand(1, 3, 64, 64)))[0].mean((1, 2, 3))
            assert energy.argmax() == scale
            centre = by_place(create_model(64)(wave.expand(1, 3, 64, 64)))[0, scale, :, 1:3, 1:3]
            assert centre.mean((1, 2)).argmax() == orientation


def test_mirroring_and_transposing_the_image_permute_its_gist():
    images = pictures(4, 32)
    model = create_model(32)
    plain = by_place(model(images))
    turned = torch.arange(ORIENTATIONS)
    mirrored = by_place(model(images.flip(3)))
    torch.testing.assert_close(mirrored, plain[:, :, -turned % 8].flip(4), rtol=0.02, atol=2e-3)
    transposed = by_place(model(images.transpose(2, 3)))
    expected = plain[:, :, (4 - turned) % 8].transpose(3, 4)
    torch.testing.assert_close(transposed, expected, rtol=0.02, atol=2e-3)


def test_brightness_contrast_and_the_order_of_channels_do_not_count():
    images, model = pictures(3, 32), create_model(32)
    expected = model(images)
    torch.testing.assert_close(model(0.3 * images + 0.2), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model(images[:, [2, 0, 1]]), expected, rtol=1e-3, atol=1e-4)


def test_an_even_image_is_zero_and_the_batch_does_not_count():
    images = pictures(gist.CPU_IMAGES + 3, 32)
    images[4] = 0.7
    model = create_model(32)
    together = model(images)
    assert (together[4] == 0).all()
    alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(together, alone)


def test_reduced_precision_around_it_does_not_reach_it():
    images, model = pictures(2, 32), create_model(32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(images), create_model(32)(images))


def test_sizes_that_blocks_do_not_divide_are_a_user_error():
    for side in (30, 0, -4):
        with pytest.raises(UserError, match=f"image_size is {side}; give a multiple of 4"):
            create_model(side)
    with pytest.raises(ValueError, match="not 32 a side"):
        create_model(32)(pictures(1, 16))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same():
    images = pictures(20, 32)
    found = create_model(32).cuda()(images.cuda()).cpu()
    torch.testing.assert_close(found, create_model(32)(images), rtol=1e-3, atol=1e-4)
