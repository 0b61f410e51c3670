"""An epoch's losses, added up where they are computed."""

from typing import Any

import torch
from torch import Tensor

from utils import distributed


class LossTally:
    """The sum of each weighted loss by name, and how many steps passed before it was NaN or Inf.

    Both stay on the device: adding a step waits for nothing.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sums = torch.zeros(0)  # (losses,)
        self.finite_steps = torch.zeros(0)  # (losses,), steps that left the sum finite
        self.steps = 0
        self.skipped = 0  # of the steps

    def add(self, losses: dict[str, Tensor]) -> None:
        """Add a step's losses, scalars; none of a step that was skipped."""
        self.steps += 1
        if not losses:
            self.skipped += 1
            return
        values = torch.stack([loss.detach().float() for loss in losses.values()])
        if not self.names:
            self.names = list(losses)
            self.sums = torch.zeros_like(values)
            self.finite_steps = torch.zeros_like(values)
        self.sums += values
        self.finite_steps += self.sums - self.sums == 0  # of what is not finite it is NaN

    def first_bad(self) -> tuple[str, int] | None:
        """The loss of any process that was the first not to be finite, and its step from 1.

        None if all were finite. Waits for the device.
        """
        if not self.names:
            return None
        finite = distributed.least_over_processes(self.finite_steps).tolist()
        fewest = min(finite)
        if fewest == self.steps - self.skipped:
            return None
        return self.names[finite.index(fewest)], int(fewest) + 1

    def means(self) -> dict[str, float]:
        """The mean of each loss over the steps that were not skipped, and over all processes."""
        if not self.names:
            return {}
        sums = distributed.sum_over_processes(self.sums).tolist()
        count = (self.steps - self.skipped) * distributed.world_size()
        return {name: value / count for name, value in zip(self.names, sums, strict=True)}

    def state(self) -> dict[str, Any]:
        """What `restored` needs, on the CPU."""
        tensors = {name: getattr(self, name).cpu() for name in ("sums", "finite_steps")}
        return {"names": self.names, "steps": self.steps, "skipped": self.skipped, **tensors}

    @classmethod
    def restored(cls, state: dict[str, Any], device: torch.device) -> "LossTally":
        """A tally that goes on from another's `state`."""
        tally = cls()
        for name, value in state.items():
            setattr(tally, name, value.to(device) if isinstance(value, Tensor) else value)
        return tally
