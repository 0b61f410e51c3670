"""Images that stream from their files: read by workers, decoded there or on the GPU."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from data.augment import Augmentation, distort, normalise
from data.content import checked_digests
from data.crops import Crops
from data.file_reader import FileReader, RawBatch, collate
from data.grouping import AT_ONCE, group_batches
from data.jpeg import decode_jpegs, decoder_error
from data.jpeg_files import PackedImages
from data.packed_crops import resize_crops
from data.prefetch import prefetch, prefetch_on_gpu
from data.source import Source
from data.to_device import upload, with_index
from utils.errors import UserError
from utils.stop_signals import SIGNALS
from utils.streams import stream_for

LEAST_GROUPS = 16  # of an epoch, so that each of as many workers has one to read
DECODED_BYTES = 2**28  # of pixels at a time, unless one image has more

Decoder = Literal["auto", "cpu", "gpu"]
DECODERS = get_args(Decoder)


class FileImages:
    """Images read from their files when they are needed.

    decode: as of `data.images.open_images`.
    """

    def __init__(self, source: Source, decode: Decoder = "auto") -> None:
        self.source = source
        self.decode = decode

    def digests(self, indices: np.ndarray) -> list[bytes]:
        """Return a digest of each image's file, each of which can be decoded.

        Raises:
            DataError: files cannot be read or decoded; names them.
        """
        return checked_digests(self.source, indices)

    def batches(
        self,
        index_batches: Sequence[np.ndarray],
        augmentation: Augmentation,
        *,
        training: bool,
        seed: int,
        device: torch.device,
        num_workers: int = 0,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (B, 3, S, S) float32 normalised images and their (B,) int64 indices.

        Both are on the device. On a GPU a thread makes them ahead of their use.

        training: random crop, flip and colours; else the shorter side is resized to
            S / crop_fraction and the centre taken. Crops and flips depend on `seed` and an
            image's place in `index_batches`, not on who decodes or how many workers read.
        num_workers: processes that read, and decode what the device does not; 0 reads in this
            one.

        Raises:
            UserError: an image cannot be read (names its full path), or 'gpu' is to decode and
                the device is none or cannot.
        """
        device = with_index(device)
        reader = FileReader(self.source, augmentation, training, seed, self._uses_gpu(device))
        return stream_batches(reader, index_batches, device, num_workers)

    def _uses_gpu(self, device: torch.device) -> bool:
        if self.decode == "cpu" or (self.decode == "auto" and device.type != "cuda"):
            return False
        if device.type != "cuda":
            raise UserError(
                f"decode is 'gpu' but the device is {device.type}; use 'auto' or 'cpu', or a GPU"
            )
        reason = decoder_error(device)
        if reason is not None and self.decode == "gpu":
            raise UserError(f"decode is 'gpu' but torchvision cannot ({reason}); use 'cpu'")
        return reason is None


def stream_batches(
    reader: FileReader, index_batches: Sequence[np.ndarray], device: torch.device, num_workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and indices as `FileImages.batches` says.

    Where a GPU decodes, small batches are read, decoded and cropped several at once: beside
    training a decoder is often kept waiting, which then is shared among more images.
    """
    if not index_batches:
        return
    at_once = _images_at_once(reader, device, sum(map(len, index_batches)))
    groups = list(group_batches(index_batches, at_once))
    loader = DataLoader(
        reader,
        batch_sampler=_numbered([np.concatenate(group) for group in groups]),
        num_workers=num_workers,
        # Of each worker; several batches at once are enough.
        prefetch_factor=(1 if at_once > 1 else 2) if num_workers else None,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
        worker_init_fn=SIGNALS.outlive_first,
    )
    # Workers start here and not in the thread, where this one may hold a lock as they fork.
    finished = _finished(iter(loader), reader, device)
    if device.type == "cuda":
        finished = prefetch_on_gpu(finished, device)
    indices = iter(upload(np.concatenate(index_batches), device).split([*map(len, index_batches)]))
    with closing(finished):
        for images, group in zip(finished, groups, strict=True):
            for part in images.split([*map(len, group)]):
                yield part, next(indices)


def _finished(
    loader: Iterator[RawBatch | UserError], reader: FileReader, device: torch.device
) -> Generator[Tensor, Any, None]:
    """Yield the normalised images (n, 3, S, S) of what workers have read at once."""
    augmentation = reader.augmentation
    generator = torch.Generator(device).manual_seed(reader.seed)
    decoded = _decoded_pieces(loader, reader.source, device)
    if device.type == "cuda":  # the next piece is decoded while this one is resized
        decoded = prefetch(decoded, depth=1)
    crops: list[Tensor] = []
    with closing(decoded):
        for piece in decoded:
            if piece.images is not None:
                crops.append(_cropped(piece, augmentation, device))
            if not piece.is_last:
                continue
            pixels = _whole_batch(piece.raw, crops, device)
            crops = []
            if reader.training:
                pixels = distort(pixels, augmentation, generator)
            yield normalise(pixels, augmentation)


class _Decoded(NamedTuple):
    """A piece of a batch, and the pixels of its JPEG files, if it has any, there at `ready`."""

    raw: RawBatch
    images: PackedImages | None
    crops: Crops
    is_last: bool
    ready: torch.cuda.Event | None


def _decoded_pieces(
    loader: Iterator[RawBatch | UserError], source: Source, device: torch.device
) -> Generator[_Decoded, None, None]:
    """Yield what workers have read, its JPEG files decoded by the device.

    Decoding does not wait for the resizing, so its results must not take memory that this still
    reads: they have memory of their own, freed when the resizing is done.
    """
    for raw in loader:
        if isinstance(raw, UserError):
            raise raw
        pieces = raw.files.pieces(DECODED_BYTES)
        if not pieces:
            yield _Decoded(raw, None, raw.crops, True, None)
        for first, last in pieces:
            with _decoding_stream(device) as stream:
                images = _decode(raw, first, last, source, device)
                ready = stream.record_event() if stream else None
            crops = raw.crops.part(first, last)
            yield _Decoded(raw, images, crops, last == len(raw.indices), ready)


@contextmanager
def _decoding_stream(device: torch.device) -> Iterator[torch.cuda.Stream | None]:
    if device.type != "cuda":
        yield None
        return
    stream = stream_for(device, "decoding")
    with torch.cuda.stream(stream):
        yield stream


def _decode(
    raw: RawBatch, first: int, last: int, source: Source, device: torch.device
) -> PackedImages:
    def read(position: int) -> Any:
        return source.read(int(raw.indices[first + position]))

    return decode_jpegs(raw.files.part(first, last), device, read)


def _cropped(piece: _Decoded, augmentation: Augmentation, device: torch.device) -> Tensor:
    """Return (n, 3, S, S) float32 pixels of 0..255 of a piece's JPEG files."""
    images = piece.images
    assert images is not None
    if piece.ready is not None:
        stream = torch.cuda.current_stream(device)
        stream.wait_event(piece.ready)
        images.line.record_stream(stream)
    return resize_crops(images, piece.crops, augmentation.image_size, augmentation.interpolation)


def _whole_batch(raw: RawBatch, crops: list[Tensor], device: torch.device) -> Tensor:
    """Return (B, 3, S, S) float32 pixels of 0..255: what workers cropped, and the device."""
    if not crops:
        return upload(raw.pixels, device).float()
    joined = crops[0] if len(crops) == 1 else torch.cat(crops)
    if not len(raw.pixels):
        return joined
    pixels = torch.empty((len(raw.pixels) + len(joined), *joined.shape[1:]), device=device)
    pixels.index_copy_(0, upload(raw.pixel_rows, device), upload(raw.pixels, device).float())
    return pixels.index_copy_(0, upload(raw.file_rows, device), joined)


def _images_at_once(reader: FileReader, device: torch.device, total: int) -> int:
    if device.type != "cuda" or not reader.keep_jpegs:
        return 1
    return min(AT_ONCE, max(1, total // LEAST_GROUPS))


def _numbered(groups: Sequence[np.ndarray]) -> list[list[tuple[int, int]]]:
    """Give each image of each group its place in the epoch."""
    places = count()
    return [[(int(index), next(places)) for index in group] for group in groups]
