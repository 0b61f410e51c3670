"""How an image file becomes what a run's networks see, as plain values that go with its weights."""

from typing import Any

from data.file_images import FileImages
from data.images import ArrayImages, Images
from engine.run import Run


def preprocessing(run: Run) -> dict[str, Any] | None:
    """What a coder of other image files must know; None where a run reads no images.

    Returns:
        held_size: pixels a side to which a file is brought before anything else (resized by its
            shorter side, bicubic, and centre-cropped), as the run's own images were; None: a file
            is cropped and resized once, from its own size.
        image_size: pixels a side that the networks see.
        interpolation, crop_fraction, mean, std: as of `data.augment.Augmentation`.
        mirror_codes: the code is that of the mean output for image and mirror image.
    """
    images, augmentation = run.dataset.images, run.augmentation
    if not _of_files(images):
        return None
    return {
        "held_size": images.array.shape[1] if isinstance(images, ArrayImages) else None,
        "image_size": augmentation.image_size,
        "interpolation": augmentation.interpolation,
        "crop_fraction": augmentation.crop_fraction,
        "mean": list(augmentation.mean),
        "std": list(augmentation.std),
        "mirror_codes": run.config.training_opt.mirror_codes,
    }


def steps(values: dict[str, Any]) -> list[str]:
    """The same in words, one step a line."""
    size, held = values["image_size"], values["held_size"]
    kind = values["interpolation"]
    shorter = round(size / values["crop_fraction"])
    whole = f"resize it whole to {size} x {size}, {kind}"
    cropped = f"resize the shorter side to {shorter}, {kind}, and take the centre, {size} x {size}"
    fitted = f"resize the shorter side to {held}, bicubic, and take the centre, {held} x {held}"
    return [
        "read the file as a viewer shows it: upright, on white, 8-bit RGB",
        *([cropped] if held is None else [f"unless it is {held} x {held}: {fitted}"]),
        *([whole] if held not in (None, size) else []),
        f"divide by 255, subtract {_numbers(values['mean'])} and divide by "
        f"{_numbers(values['std'])} (red, green, blue)",
        *(["take the mean output for the image and its mirror image"] * values["mirror_codes"]),
    ]


def _of_files(images: Images) -> bool:
    """Whether an image file can be brought into the form of a run's images."""
    if isinstance(images, ArrayImages):
        return images.array.shape[1] == images.array.shape[2]  # others are held as they came
    return isinstance(images, FileImages)


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
