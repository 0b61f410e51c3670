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
    return _is_of(module, "timm", name)


def is_torchvision(module: nn.Module, name: str) -> bool:
    """Whether a module's class is torchvision's of that name, which is slow to import."""
    return _is_of(module, "torchvision", name)


def _is_of(module: nn.Module, package: str, name: str) -> bool:
    kind = type(module)
    return kind.__name__ == name and kind.__module__.startswith(f"{package}.")
