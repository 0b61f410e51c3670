"""What is minimised: networks and losses as one module."""

from torch import Tensor, nn
from torch.profiler import record_function

from engine.build import Criterion
from engine.model import Precision
from utils.errors import UserError


class Objective(nn.Module):
    """Maps a batch of images and labels to each weighted loss by name.

    One module, so that whatever wraps it (DistributedDataParallel, torch.compile) also covers the
    parameters of the losses.
    """

    def __init__(
        self, model: nn.Sequential, criterions: dict[str, Criterion], precision: Precision
    ) -> None:
        super().__init__()
        self.model = model
        self.losses = nn.ModuleList(criterion.loss for criterion in criterions.values())
        self.criterions = criterions
        self.precision = precision

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Weighted losses, scalars, of images (B, 3, S, S) and labels (B,) or (B, C).

        Raises:
            UserError: if a loss asks for an output that the networks do not give.
        """
        with record_function("forward"), self.precision():
            outputs = self.model(images)
        with record_function("losses"):
            asked = {each for criterion in self.criterions.values() for each in criterion.inputs}
            available = {n: each.float() if n in asked else each for n, each in outputs.items()}
            available["labels"] = labels
            return {
                name: _weighted(criterion, _pick(available, name, criterion))
                for name, criterion in self.criterions.items()
            }


def _weighted(criterion: Criterion, inputs: dict[str, Tensor]) -> Tensor:
    loss: Tensor = criterion.loss(**inputs)
    return loss if criterion.weight == 1 else criterion.weight * loss  # spare two kernels


def _pick(available: dict[str, Tensor], name: str, criterion: Criterion) -> dict[str, Tensor]:
    """The outputs that a loss asks for."""
    missing = [each for each in criterion.inputs if each not in available]
    if missing:
        raise UserError(
            f"criterions.{name} needs {', '.join(missing)}, the networks give "
            f"{', '.join(available)}; use another loss or head"
        )
    return {each: available[each] for each in criterion.inputs}
