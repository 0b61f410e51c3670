"""Heads of the memory study: those of the project, and remedies that were tried beside them."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.memory_study_samples import Choose, k_means_samples, random_samples
from models.direct_head import DirectHead
from models.memory import choose_samples
from models.meta_embedding_head import MetaEmbeddingHead

LARGE = 50  # training images of a class that others may lean on


class NormalisedDirectHead(DirectHead):
    """The direct head on centred inputs of unit length, scaled to a typical length."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.register_buffer("centre", torch.zeros(sizes[0]))

    def use_features(self, inputs: Tensor, labels: Tensor) -> None:
        cast(Tensor, self.centre).copy_(inputs.mean(0))

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        return super().forward(16 * functional.normalize(inputs - cast(Tensor, self.centre)))


class DirectFeatureAttention(MetaEmbeddingHead):
    """Attention by cosine in the space of direct features, where the paper's memory lies."""

    def _attend(self, inputs: Tensor, features: Tensor) -> Tensor:
        memory = cast(Tensor, self.memory)
        centre = memory.mean(0)
        cosine = functional.normalize(features - centre) @ functional.normalize(memory - centre).T
        return torch.softmax(self.temperature * cosine, dim=1)


class InputAttention(MetaEmbeddingHead):
    """Attention learned by a layer on the head's inputs: as free as the paper's."""

    def __init__(self, *sizes: Any, **options: Any) -> None:
        super().__init__(*sizes, **options)
        self.attention_layer = nn.Linear(sizes[0], sizes[4])

    def _attend(self, inputs: Tensor, features: Tensor) -> Tensor:
        return torch.softmax(self.attention_layer(inputs), dim=1)


class TrainedKeys(MetaEmbeddingHead):
    """Attention by cosine to keys that are trained from the memory's, not kept equal to them."""

    def __init__(self, *sizes: Any, **options: Any) -> None:
        super().__init__(*sizes, **options)
        self.trained_keys = nn.Parameter(torch.zeros(sizes[4], sizes[0]))

    def set_memory(self, *parts: Any, **named: Any) -> None:
        keys = cast(Tensor, self.keys)
        first = not keys.any()
        super().set_memory(*parts, **named)
        if first:
            with torch.no_grad():
                self.trained_keys.copy_(keys)

    def _attend(self, inputs: Tensor, features: Tensor) -> Tensor:
        centre = cast(Tensor, self.keys).mean(0)
        keys = functional.normalize(self.trained_keys - centre)
        return torch.softmax(self.temperature * functional.normalize(inputs - centre) @ keys.T, 1)


class MemoryAlone(MetaEmbeddingHead):
    """No direct feature in the meta-embedding: v_meta = v_mem."""

    def _select(self, features: Tensor) -> Tensor:
        return torch.ones_like(features)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        features = functional.relu(self.feature_layer(inputs))
        attention = self._attend(inputs, features)
        embeddings = attention @ cast(Tensor, self.memory)
        codes = torch.tanh(self.hash_layer(embeddings))
        outputs = {"features": features, "attention": attention, "embeddings": embeddings}
        selector = self._select(features)
        return {**outputs, "selector": selector, "codes": codes, "logits": self.classifier(codes)}


class LeaveOneOut(MetaEmbeddingHead):
    """In training, an image's own centroid is that of its class's other images."""

    own: tuple[Tensor, Tensor] | None = None  # (B, in_features) keys, (B,) labels

    def use_features(self, inputs: Tensor, labels: Tensor) -> None:
        self.all_inputs, self.all_labels = inputs, labels
        self.counts = torch.bincount(labels, minlength=len(cast(Tensor, self.keys)))

    def begin_batch(self, rows: Tensor | None) -> None:
        self.own = None
        if rows is not None:
            labels = self.all_labels[rows]
            count = self.counts[labels][:, None]
            sums = cast(Tensor, self.keys)[labels] * count - self.all_inputs[rows]
            self.own = sums / (count - 1).clamp(min=1), labels

    def _attend(self, inputs: Tensor, features: Tensor) -> Tensor:
        keys = cast(Tensor, self.keys)
        centre = keys.mean(0)
        directions = functional.normalize(inputs - centre)
        cosine = directions @ functional.normalize(keys - centre).T
        if self.own is not None:
            without, labels = self.own
            own = (directions * functional.normalize(without - centre)).sum(1, keepdim=True)
            cosine = cosine.scatter(1, labels[:, None], own)
        return torch.softmax(self.temperature * cosine, dim=1)


class LeaningKeys(MetaEmbeddingHead):
    """Keys lean on those of similar classes of many images, as if these were so many of the class.

    Yang, Liu & Xu, "Free Lunch for Few-Shot Learning: Distribution Calibration", ICLR 2021, lean
    the means of new classes on those of known ones.
    """

    def __init__(self, *sizes: Any, prior: float, **options: Any) -> None:
        super().__init__(*sizes, **options)
        self.prior = prior

    def set_memory(self, *parts: Any, **named: Any) -> None:
        super().set_memory(*parts, **named)
        keys, counts = cast(Tensor, self.keys), cast(Tensor, self.counts)
        keys.copy_(leaning(keys, counts, self.prior, self.temperature))


def leaning(centroids: Tensor, counts: Tensor, prior: float, temperature: float) -> Tensor:
    """Centroids (C, d) and, with the weight of `prior` images, the mean of similar large classes'.

    That mean is weighted by softmax(τ cos) between the centroids, each less their mean.
    """
    directions = functional.normalize(centroids - centroids.mean(0))
    scores = temperature * directions @ directions.T
    unfit = (counts < LARGE).expand_as(scores) | torch.eye(len(counts), dtype=torch.bool)
    if not prior or unfit.all(1).any():
        return centroids
    weights = torch.softmax(scores.masked_fill(unfit, -torch.inf), dim=1)
    own = (counts / (counts + prior))[:, None]
    return own * centroids + (1 - own) * weights @ centroids


class CodeSpace(MetaEmbeddingHead):
    """The memory's part is added to the code, not the feature: W_b v + 16 W_cᵀ o."""

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        features = functional.relu(self.feature_layer(inputs))
        attention = self._attend(inputs, features)
        part = 16 * attention @ self.classifier.weight
        if not cast(Tensor, self.memory).any():
            part = 0 * part  # the head with its memory emptied
        codes = torch.tanh(self.hash_layer(features) + part)
        outputs = {"features": features, "attention": attention, "embeddings": features}
        selector = torch.ones_like(features)
        return {**outputs, "selector": selector, "codes": codes, "logits": self.classifier(codes)}


@dataclass(frozen=True)
class Variant:
    """A head to try: its class and options, samples a class and who chooses them, its start."""

    head: type[nn.Module]
    options: dict[str, Any]
    samples: int | None = 0  # None: no memory
    from_stage_1: bool = True
    trained: bool = True
    choose: Choose = choose_samples


_COSINE = {"attention": "cosine"}
_ONE, _FOUR = {**_COSINE, "selector": 1.0}, {**_COSINE, "selector": 4.0}
_ADJUSTED = {**_ONE, "adjustment": 0.6}
VARIANTS = {
    "stage_1": Variant(DirectHead, {}, None, trained=False),
    "direct": Variant(DirectHead, {}, None),
    "direct_anew": Variant(DirectHead, {}, None, from_stage_1=False),
    "direct_normalised_anew": Variant(NormalisedDirectHead, {}, None, from_stage_1=False),
    "published_k3": Variant(MetaEmbeddingHead, {}, 3),
    "published_k0": Variant(MetaEmbeddingHead, {}),
    "published_k0_anew": Variant(MetaEmbeddingHead, {}, from_stage_1=False),
    "attention_learned_on_inputs": Variant(InputAttention, {"selector": 1.0}),
    "cosine_of_direct_features": Variant(
        DirectFeatureAttention, {"selector": 1.0, "temperature": 7.0}
    ),
    "cosine": Variant(MetaEmbeddingHead, _COSINE),
    "cosine_selector_1": Variant(MetaEmbeddingHead, _ONE),
    "cosine_selector_4": Variant(MetaEmbeddingHead, _FOUR),
    "cosine_selector_1_k3": Variant(MetaEmbeddingHead, _ONE, 3),
    "cosine_trained_keys": Variant(TrainedKeys, _ONE),
    "cosine_leave_one_out": Variant(LeaveOneOut, _ONE),
    "cosine_whitened": Variant(MetaEmbeddingHead, {**_ONE, "shrinkage": 1.0}),
    "cosine_code_space": Variant(CodeSpace, _ONE),
    "cosine_memory_alone": Variant(MemoryAlone, _ONE),
    "cosine_selector_1_untrained": Variant(MetaEmbeddingHead, _ONE, trained=False),
    "cosine_selector_4_untrained": Variant(MetaEmbeddingHead, _FOUR, trained=False),
    **{
        f"cosine_adjusted_{power}_untrained": Variant(
            MetaEmbeddingHead, {**_ONE, "adjustment": power}, trained=False
        )
        for power in (0.2, 0.4, 0.6, 0.8, 1.0)
    },
    **{
        f"cosine_adjusted_{name}_untrained": Variant(
            MetaEmbeddingHead, {**_ADJUSTED, **options}, trained=False
        )
        for name, options in {
            "temperature_10": {"temperature": 10.0},
            "temperature_20": {"temperature": 20.0},
            "power": {"power": 0.5},
            "whitened": {"shrinkage": 3.0, "temperature": 16.0},
            "power_whitened": {"power": 0.5, "shrinkage": 3.0, "temperature": 16.0},
            "power_whitened_20": {"power": 0.5, "shrinkage": 2.0, "temperature": 20.0},
        }.items()
    },
    "cosine_adjusted_leaning_untrained": Variant(
        LeaningKeys, {**_ADJUSTED, "prior": 3.0}, trained=False
    ),
    **{
        f"cosine_adjusted_k3_{name}_untrained": Variant(
            MetaEmbeddingHead, _ADJUSTED, 3, trained=False, choose=choose
        )
        for name, choose in {
            "dpp": choose_samples,
            "random": random_samples,
            "k_means": k_means_samples,
        }.items()
    },
}
