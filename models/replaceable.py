"""What is asked of a network's layer before one of this project's takes its place."""

from torch import nn


def has_hooks(module: nn.Module) -> bool:
    """Whether calling a module does more than its `forward`."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def is_timm(module: nn.Module, name: str) -> bool:
    """Whether a module's class is timm's of that name, which need not be installed."""
    kind = type(module)
    return kind.__name__ == name and kind.__module__.startswith("timm.")
