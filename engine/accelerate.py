"""Ways to run one plain backward pass faster: compiled, captured, on several GPUs.

Each is a callable that takes a batch, leaves the gradients (averaged over processes) in the
parameters and returns the losses. Clipping, the optimizer and its learning rates stay outside, so
nothing is recompiled or recaptured when a rate changes.
"""

import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import record_function

from engine.objective import Objective
from models.depthwise_conv import replace_depthwise_convs
from models.fused_batch_norm import fuse_batch_norms
from models.overlapped_conv import overlap_weight_gradients
from models.residual_block import fuse_residual_blocks
from models.rounded_weights import RoundedWeights
from utils import distributed
from utils.errors import UserError
from utils.streams import stream_for

logger = logging.getLogger("long_tail_hashing")

Mode = Literal["auto", "none", "graph", "compile"]
Backward = Callable[[Tensor, Tensor], dict[str, Tensor]]

WARM_UP = 11  # passes before a capture; DistributedDataParallel asks for as many


def to_device(model: nn.Sequential, mode: Mode, device: torch.device) -> nn.Sequential:
    """The networks on their device, in the form that is fastest there.

    On a GPU tensors are channels_last and, unless the mode is 'none' or 'compile' (which fuses by
    itself), batch normalisations are fused with the activations that follow them and with the
    shortcuts of torchvision's ResNets, depthwise convolutions have kernels of their own, and weight
    gradients of small batches, unless several processes share them, are computed beside the others.
    """
    if device.type != "cuda":
        return model.to(device)
    if mode in ("auto", "graph"):
        fuse_batch_norms(model)
        fuse_residual_blocks(model)
        replace_depthwise_convs(model)
        if distributed.world_size() == 1:
            overlap_weight_gradients(model)
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def make_backward(objective: Objective, mode: Mode, device: torch.device) -> Backward:
    """The backward pass that `training_opt.accelerate` asks for.

    Args:
        mode: 'none' runs it plainly; 'graph' captures it as a CUDA graph, which is replayed without
            Python and launches; 'compile' fuses it with torch.compile (half a minute at the start)
            and captures it where there is a GPU; 'auto' is 'graph' on a GPU, run plainly if it
            cannot be captured, and 'none' elsewhere.

    Raises:
        UserError: for 'graph' without a GPU.
    """
    if mode == "graph" and device.type != "cuda":
        raise UserError("training_opt.accelerate is 'graph', but there is no GPU; use 'auto'")
    network: nn.Module = objective
    if mode == "compile":
        network = torch.compile(objective, dynamic=False)  # type: ignore[assignment]
    if device.type != "cuda":
        return PlainBackward(_parallel(network))
    # Several processes average each gradient as it comes; all at the end would come too late.
    if mode in ("auto", "graph") and objective.precision.bf16 and distributed.world_size() == 1:
        network = RoundedWeights(objective, objective.model, torch.bfloat16)
    # DistributedDataParallel must be made on a stream that can be captured.
    stream = stream_for(device, "training")
    with _on(stream):
        plain = PlainBackward(_parallel(network))
    return plain if mode == "none" else CapturedBackward(plain, stream, strict=mode != "auto")


class PlainBackward:
    """Forward, losses, backward."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.parameters = [each for each in network.parameters() if each.requires_grad]

    def __call__(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        for parameter in self.parameters:
            parameter.grad = None
        losses = self.network(images, labels)
        with record_function("backward"):
            reduce(torch.add, losses.values()).backward()
        return losses


@dataclass(frozen=True)
class _Capture:
    """A recorded pass and the memory that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    images: Tensor
    labels: Tensor
    losses: dict[str, Tensor]
    gradients: list[Tensor | None]


class CapturedBackward:
    """A plain backward pass, recorded once a batch shape as a CUDA graph and then replayed.

    What a pass computes must not depend on Python or on values read back from the GPU. If one
    cannot be captured, `strict` raises a UserError; otherwise it is run plainly, with a warning.
    A pass that replaces a buffer is refused in either case: its replays would go wrong silently.
    """

    def __init__(self, plain: PlainBackward, stream: torch.cuda.Stream, strict: bool) -> None:
        self.plain = plain
        self.stream = stream
        self.strict = strict
        self.pool = torch.cuda.graph_pool_handle()
        self.captures: dict[tuple[torch.Size, torch.Size], _Capture] = {}
        self.possible = True

    def __call__(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        shapes = (images.shape, labels.shape)
        if self.possible and shapes not in self.captures:
            self._warm_up(images, labels)
            self._try_capture(images, labels)
        if not self.possible:
            return self.plain(images, labels)
        capture = self.captures[shapes]
        capture.images.copy_(images)
        capture.labels.copy_(labels)
        capture.graph.replay()
        for parameter, gradient in zip(self.plain.parameters, capture.gradients, strict=True):
            parameter.grad = gradient
        return capture.losses

    def _warm_up(self, images: Tensor, labels: Tensor) -> None:
        """Let libraries choose kernels and take memory; statistics and random state stay."""
        buffers = list(self.plain.network.buffers())
        before = [buffer.clone() for buffer in buffers]
        random_state = torch.cuda.get_rng_state(images.device)
        with _on(self.stream):
            for _ in range(WARM_UP):
                self.plain(images, labels)
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
        torch.cuda.set_rng_state(random_state, images.device)
        if [id(each) for each in self.plain.network.buffers()] != [id(each) for each in buffers]:
            raise UserError(
                "a network or loss replaces a buffer in its forward pass, which a captured step "
                "cannot follow; change it in place (copy_), or set training_opt.accelerate='none'"
            )

    def _try_capture(self, images: Tensor, labels: Tensor) -> None:
        try:
            self.captures[images.shape, labels.shape] = self._capture(images, labels)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            if self.strict:
                raise UserError(
                    f"the training step cannot be captured ({reason}); a loss or network may read "
                    "values back from the GPU: set training_opt.accelerate='none'"
                ) from error
            logger.warning("the training step cannot be captured, so it runs plainly: %s", reason)
            self.possible = False

    def _capture(self, images: Tensor, labels: Tensor) -> _Capture:
        own_images, own_labels = images.clone(), labels.clone()
        graph = torch.cuda.CUDAGraph()
        # Other threads load images and watch over processes meanwhile: thread_local lets them.
        with torch.cuda.graph(
            graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"
        ):
            losses = self.plain(own_images, own_labels)
        kept = {name: loss.detach() for name, loss in losses.items()}
        gradients = [parameter.grad for parameter in self.plain.parameters]
        return _Capture(graph, own_images, own_labels, kept, gradients)


def _parallel(network: nn.Module) -> nn.Module:
    """The network with its gradients averaged over all processes, if there are several.

    Batch statistics stay each process's own, as is usual; `distributed.average_statistics` unites
    them before they are used.
    """
    if distributed.world_size() == 1:
        return network
    known = inspect.signature(DistributedDataParallel).parameters
    own_buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    own: dict[str, Any] = {own_buffers: False}
    return DistributedDataParallel(network, gradient_as_bucket_view=True, static_graph=True, **own)


@contextmanager
def _on(stream: torch.cuda.Stream) -> Iterator[None]:
    """Run a block on a side stream, in its place in the current stream's order."""
    stream.wait_stream(torch.cuda.current_stream(stream.device))
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream(stream.device).wait_stream(stream)
