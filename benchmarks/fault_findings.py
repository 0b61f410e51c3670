"""What a module of the fault benchmark found."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """How many faults of a kind were tried, and which of them were not borne as promised.

    failures: one line each; it names the fault so that it can be tried again.
    figures: what else is worth a column, by name.
    """

    name: str
    tried: int
    failures: list[str]
    seconds: float
    figures: dict[str, float | str] = field(default_factory=dict)
