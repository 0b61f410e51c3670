"""LTHNet's head: the direct feature enriched from a memory of class centroids and samples."""

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.cosine_attention import cosine_attention, powered
from utils.errors import UserError

Attention = Literal["learned", "cosine"]


class MetaEmbeddingHead(nn.Module):
    """Dynamic meta-embedding before the hash layer.

    With direct feature v: attention o = softmax(W_h v) over the memory's rows, memory feature
    v_mem = oᵀM, selector e = tanh(W_s v), meta-embedding v_meta = v + e ⊙ v_mem; then
    h = tanh(W_b v_meta) and logits W_c h. Chen et al., SIGIR 2021, section 3; the meta-embedding
    is that of Liu et al., "Large-Scale Long-Tailed Recognition in an Open World", CVPR 2019.

    Attention 'cosine' learns nothing: o = softmax(τ cos(x - m, k_r - m)) with the head's input x,
    the same rows' inputs k_r as keys, and their mean m; that of prototypes (Snell et al.,
    "Prototypical Networks", NeurIPS 2017) with a cosine (Vinyals et al., "Matching Networks",
    NeurIPS 2016). docs/long_tail_study.md shows why. With `adjustment` b the score of a row is
    less by b log n, n being its class's training images: the logit adjustment after training of
    Menon et al., "Long-Tail Learning via Logit Adjustment", ICLR 2021, for attention. With `power`
    and `shrinkage` x and k_r are changed as `powered` and models/memory.py's `whitening` say, for
    rounder classes.

    The memory M (memory_rows, feature_dim) and its keys (memory_rows, in_features) are buffers:
    saved with the weights, not trained. They are zero until `set_memory`, which makes the head a
    direct one.
    """

    # The buffers that `set_memory` fills: weights to start from need not hold them.
    MEMORY_PARTS = ("memory", "keys", "counts", "whitening")

    def __init__(
        self,
        in_features: int,
        feature_dim: int,
        code_length: int,
        num_classes: int,
        memory_rows: int,
        attention: Attention = "learned",
        temperature: float = 14.0,
        selector: float | None = None,
        adjustment: float = 0.0,
        power: float = 1.0,
        shrinkage: float | None = None,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.adjustment = adjustment
        self.power = power
        self.shrinkage = shrinkage
        self.feature_layer = nn.Linear(in_features, feature_dim)
        self.hallucinator = nn.Linear(feature_dim, memory_rows) if attention == "learned" else None
        self.selector = nn.Linear(feature_dim, feature_dim) if selector is None else None
        self.fixed_selector = selector
        self.hash_layer = nn.Linear(feature_dim, code_length)
        self.classifier = nn.Linear(code_length, num_classes)
        self.register_buffer("memory", torch.zeros(memory_rows, feature_dim))
        if attention == "cosine":
            self.register_buffer("keys", torch.zeros(memory_rows, in_features))
        if adjustment:
            self.register_buffer("counts", torch.ones(memory_rows))
        if shrinkage is not None:
            self.register_buffer("whitening", torch.eye(in_features))

    def set_memory(
        self,
        memory: Tensor,
        keys: Tensor | None = None,
        counts: Tensor | None = None,
        whitening: Tensor | None = None,
    ) -> None:
        """Replace the memory in place by `memory` (memory_rows, feature_dim).

        For attention 'cosine' alone: `keys` (memory_rows, in_features) are the rows' inputs,
        `counts` (memory_rows,) the training images of each row's class, for `adjustment`, and
        `whitening` (in_features, in_features) is for `shrinkage`.
        """
        cast(Tensor, self.memory).copy_(memory.detach())
        if keys is not None:
            cast(Tensor, self.keys).copy_(keys.detach())
        if counts is not None and self.adjustment:
            cast(Tensor, self.counts).copy_(counts)
        if whitening is not None and self.shrinkage is not None:
            cast(Tensor, self.whitening).copy_(whitening.detach())

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Map backbone features (B, in_features) to named outputs.

        Returns:
            `features` (B, feature_dim), the direct feature; `attention` (B, memory_rows), rows
            sum to 1; `selector` (B, feature_dim), in (-1, 1) where it is learned; `embeddings`
            (B, feature_dim); `codes` (B, code_length), in (-1, 1); `logits` (B, num_classes);
            with attention 'cosine' also `inputs`, to their power, from which keys are made.
        """
        features = functional.relu(self.feature_layer(inputs))
        inputs = powered(inputs, self.power)
        attention = self._attend(inputs, features)
        memory_feature = attention @ cast(Tensor, self.memory).to(attention.dtype)
        selector = self._select(features)
        embeddings = features + selector * memory_feature
        codes = torch.tanh(self.hash_layer(embeddings))
        outputs = {
            "features": features,
            "attention": attention,
            "selector": selector,
            "embeddings": embeddings,
            "codes": codes,
            "logits": self.classifier(codes),
        }
        return outputs if self.hallucinator is not None else {**outputs, "inputs": inputs}

    def _attend(self, inputs: Tensor, features: Tensor) -> Tensor:
        """Attention (B, memory_rows) over the memory's rows."""
        if self.hallucinator is not None:
            return torch.softmax(self.hallucinator(features), dim=1)
        less = None
        if self.adjustment:  # a class without images has an empty row
            less = self.adjustment * cast(Tensor, self.counts).clamp(min=1).log()
        whiten = None if self.shrinkage is None else cast(Tensor, self.whitening)
        return cosine_attention(inputs, cast(Tensor, self.keys), self.temperature, whiten, less)

    def _select(self, features: Tensor) -> Tensor:
        """The selector e, (B, feature_dim)."""
        if self.selector is not None:
            return torch.tanh(self.selector(features))
        return torch.full_like(features, cast(float, self.fixed_selector))


def create_model(
    in_features: int,
    feature_dim: int,
    code_length: int,
    num_classes: int,
    memory_rows: int,
    attention: Attention = "learned",
    temperature: float = 14.0,
    selector: float | None = None,
    adjustment: float = 0.0,
    power: float = 1.0,
    shrinkage: float | None = None,
) -> MetaEmbeddingHead:
    """Build the head; `memory_rows` is (k + 1)·C, from the config's `memory`.

    Args:
        attention: 'learned', LTHNet's layer on the direct feature, or 'cosine', of the head's
            input and the memory's keys.
        temperature: τ of attention 'cosine'; larger is sharper.
        selector: None, LTHNet's layer on the direct feature, or e itself, the same everywhere.
        adjustment: b of attention 'cosine': a row counts less by the b-th power of its class's
            training images. Such a head also saves these `counts`.
        power: λ of attention 'cosine': of its inputs, above 0.
        shrinkage: s of attention 'cosine': inputs are whitened within classes, less so the larger
            it is; none, not at all. Such a head also saves its `whitening`.

    Raises:
        UserError: if the config turns the memory off, or an option is none of these.
    """
    if memory_rows == 0:
        raise UserError(
            "meta_embedding_head: the config's memory is off; "
            "set memory.centroids=True or use models/direct_head.py"
        )
    _check_attention(attention, temperature, adjustment, power, shrinkage)
    return MetaEmbeddingHead(
        in_features,
        feature_dim,
        code_length,
        num_classes,
        memory_rows,
        attention,
        temperature,
        selector,
        adjustment,
        power,
        shrinkage,
    )


def _check_attention(
    attention: str, temperature: float, adjustment: float, power: float, shrinkage: float | None
) -> None:
    """Refuse options of attention that are out of range, or of attention 'cosine' with another."""
    if attention not in ("learned", "cosine"):
        raise UserError(
            f"meta_embedding_head: attention is {attention!r}, expected 'learned' or 'cosine'"
        )
    if not temperature > 0:
        raise UserError(f"meta_embedding_head: temperature is {temperature}, expected above 0")
    cosine = attention == "cosine"
    if adjustment < 0 or (adjustment and not cosine):
        raise UserError(
            f"meta_embedding_head: adjustment is {adjustment} with attention {attention!r}, "
            "expected 0 or more, and 'cosine'"
        )
    if not power > 0 or (power != 1 and not cosine):
        raise UserError(
            f"meta_embedding_head: power is {power} with attention {attention!r}, "
            "expected above 0, and 'cosine'"
        )
    if shrinkage is not None and not (shrinkage > 0 and cosine):
        raise UserError(
            f"meta_embedding_head: shrinkage is {shrinkage} with attention {attention!r}, "
            "expected above 0, and 'cosine'; leave it out to whiten nothing"
        )
