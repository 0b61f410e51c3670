"""An epoch's losses, kept where they are computed until something asks for them."""

from typing import Any

import torch
from torch import Tensor

from utils import distributed

ROOM = 1024  # steps that memory is taken for at first


class LossTally:
    """Each weighted loss, by name, of each step of an epoch.

    They stay on the device: adding a step is one small kernel and waits for nothing.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.steps = 0
        self.skipped = 0  # of the steps
        self._values = torch.zeros(0, 0)  # (room, losses), a row a step that was not skipped

    @property
    def values(self) -> Tensor:
        """The losses (steps that were not skipped, losses), in the order of `names`."""
        return self._values[: self.steps - self.skipped]

    def add(self, losses: dict[str, Tensor]) -> None:
        """Add a step's losses, scalars; none of a step that was skipped."""
        if losses:
            row = [loss.detach().float() for loss in losses.values()]
            if len(self.values) == len(self._values):
                self._make_room(list(losses), row[0].device)
            torch.stack(row, out=self._values[self.steps - self.skipped])
        else:
            self.skipped += 1
        self.steps += 1

    def first_bad(self) -> tuple[str, int] | None:
        """The loss of any process that was the first to be NaN or infinite, and its step from 1.

        None if all were finite. Waits for the device.
        """
        values = self.values
        if not values.numel():
            return None
        steps = torch.arange(len(values), device=values.device)[:, None]
        bad = torch.where(values.isfinite(), len(values), steps).amin(0)
        first = distributed.least_over_processes(bad).tolist()
        if min(first) == len(values):
            return None
        return self.names[first.index(min(first))], min(first) + 1

    def means(self) -> dict[str, float]:
        """The mean of each loss over the steps that were not skipped, and over all processes."""
        sums = distributed.sum_over_processes(self.values.double().sum(0)).tolist()
        count = len(self.values) * distributed.world_size()
        return {name: value / count for name, value in zip(self.names, sums, strict=True)}

    def state(self) -> dict[str, Any]:
        """What `restored` needs, on the CPU."""
        values = self.values.cpu().clone()
        return {
            "names": self.names, "steps": self.steps, "skipped": self.skipped, "values": values
        }  # fmt: skip

    @classmethod
    def restored(cls, state: dict[str, Any], device: torch.device) -> "LossTally":
        """A tally that goes on from another's `state`.

        Raises:
            ValueError: if its values are not as many as its steps and losses.
        """
        tally = cls()
        tally.names, tally.steps, tally.skipped = state["names"], state["steps"], state["skipped"]
        tally._values = state["values"].to(device)
        shape = (tally.steps - tally.skipped, len(tally.names))
        if tally._values.shape != shape and tally._values.numel():
            raise ValueError(f"losses are of shape {tuple(tally._values.shape)}, not {shape}")
        return tally

    def _make_room(self, names: list[str], device: torch.device) -> None:
        """Take memory for as many steps again."""
        known, self.names = self.values, names
        self._values = torch.zeros(max(ROOM, 2 * len(known)), len(names), device=device)
        if len(known):
            self._values[: len(known)] = known
