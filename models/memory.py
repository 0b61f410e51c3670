"""The memory of LTHNet: each class's centroid and k diverse samples near it."""

import torch
from torch import Tensor
from torch.nn import functional

# Below this residual volume a candidate adds nothing: it repeats what was chosen before, up to
# the rounding of float32, which was seen to leave 4e-6.
MIN_RESIDUAL = 1e-5


def class_centroids(features: Tensor, classes: Tensor, num_classes: int) -> Tensor:
    """Mean feature of each class.

    Args:
        features: (P, d), one row an (image, class) pair.
        classes: (P,) class index of each row.
        num_classes: C.

    Returns:
        (C, d); a class without images has a zero row.
    """
    sums = features.new_zeros(num_classes, features.shape[1]).index_add_(0, classes, features)
    counts = torch.bincount(classes, minlength=num_classes).clamp_(min=1)
    return sums / counts[:, None]


def dpp_samples(features: Tensor, classes: Tensor, centroids: Tensor, k: int) -> Tensor:
    """Choose k samples a class by a determinantal point process, all classes at once.

    The kernel within a class is L_ij = q_i · cos(v_i, v_j) · q_j with quality
    q_i = exp(cos(v_i, centroid)): samples close to the centroid and diverse among themselves.
    The subset is found by greedy MAP inference with incremental Cholesky factors (Chen, Zhang &
    Zhou, "Fast Greedy MAP Inference for Determinantal Point Process", NeurIPS 2018); one round
    costs O(P·d), and no kernel matrix is held.

    Args:
        features: (P, d). classes: (P,). centroids: (C, d). k: samples a class.

    Returns:
        (C, k) row indices into `features`, -1 where a class has no further sample that adds
        volume (fewer than k images, or duplicates).
    """
    num_classes = len(centroids)
    directions = functional.normalize(features.float(), dim=1)
    centre_directions = functional.normalize(centroids.float(), dim=1)
    quality = torch.exp((directions * centre_directions[classes]).sum(1))
    residual = quality.square() * directions.square().sum(1)  # the kernel's diagonal
    factors = features.new_zeros(len(features), k, dtype=torch.float32)
    chosen = torch.full((num_classes, k), -1, dtype=torch.long, device=features.device)
    for step in range(k):
        best = _argmax_by_class(residual, classes, num_classes)
        best = torch.where(residual[best] > MIN_RESIDUAL, best, -1)
        best = torch.where(_present(classes, num_classes), best, -1)
        chosen[:, step] = best
        rows = best[classes]  # for each item, the row just chosen in its class
        kernel = quality * quality[rows] * (directions * directions[rows]).sum(1)
        update = kernel - (factors[:, :step] * factors[rows, :step]).sum(1)
        update = update / residual[rows].clamp(min=MIN_RESIDUAL).sqrt()
        update = torch.where(rows >= 0, update, 0)
        factors[:, step] = update
        residual = residual - update.square()
        residual[best[best >= 0]] = 0  # exactly: rounding must not choose a sample twice
    return chosen


def build_memory(features: Tensor, classes: Tensor, num_classes: int, k: int) -> Tensor:
    """The memory M: for each class its centroid, then k samples.

    Args:
        features: (P, d) direct features of the training images, one row an (image, class) pair.
        classes: (P,) class indices.
        num_classes: C.
        k: DPP samples a class; 0 for centroids alone.

    Returns:
        ((k + 1)·C, d), class by class. Where a class lacks samples its centroid is repeated.
    """
    return fill_memory(features, classes, choose_samples(features, classes, num_classes, k))


def choose_samples(features: Tensor, classes: Tensor, num_classes: int, k: int) -> Tensor:
    """The rows of the memory's samples, (C, k): `dpp_samples` around the classes' centroids."""
    return dpp_samples(features, classes, class_centroids(features, classes, num_classes), k)


def fill_memory(values: Tensor, classes: Tensor, chosen: Tensor) -> Tensor:
    """Centroids and chosen rows of `values` (P, d), as `build_memory` orders them."""
    centroids = class_centroids(values, classes, len(chosen))
    samples = torch.where(chosen[..., None] >= 0, values[chosen], centroids[:, None])
    return torch.cat([centroids[:, None], samples], dim=1).flatten(0, 1)


def row_counts(classes: Tensor, chosen: Tensor) -> Tensor:
    """Images of each row's class, (memory_rows,), in the order of `fill_memory`."""
    counts = torch.bincount(classes, minlength=len(chosen))
    return counts.repeat_interleave(1 + chosen.shape[1])


def whitening(values: Tensor, classes: Tensor, num_classes: int, shrinkage: float) -> Tensor:
    """W (d, d) with W Wᵀ = (Σ + s·v·I)^-1, for the covariance Σ within classes.

    Args:
        values: (P, d), a row an (image, class) pair. classes: (P,). num_classes: C.
        shrinkage: s; v is the mean of Σ's diagonal. Larger whitens less.
    """
    rows = values.double()
    residuals = rows - class_centroids(rows, classes, num_classes)[classes]
    covariance = residuals.T @ residuals / len(rows)
    mean = covariance.diagonal().mean().clamp(min=torch.finfo(values.dtype).tiny)
    covariance.diagonal().add_(shrinkage * mean)
    factor = torch.linalg.cholesky(covariance)
    unit = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
    return torch.linalg.solve_triangular(factor, unit, upper=False).T.to(values.dtype)


def memory_parts(
    features: Tensor,
    inputs: Tensor | None,
    classes: Tensor,
    chosen: Tensor,
    shrinkage: float | None = None,
) -> dict[str, Tensor]:
    """What `set_memory` of a head takes, by argument, from the training images.

    Args:
        features: (P, d) direct features, a row an (image, class) pair.
        inputs: (P, in_features) inputs of attention by cosine; none for attention that is learned.
        classes: (P,). chosen: (C, k), of `choose_samples`.
        shrinkage: of a head that whitens its inputs.
    """
    parts = {"memory": fill_memory(features, classes, chosen)}
    if inputs is not None:
        parts["keys"] = fill_memory(inputs, classes, chosen)
        parts["counts"] = row_counts(classes, chosen)
        if shrinkage is not None:
            parts["whitening"] = whitening(inputs, classes, len(chosen), shrinkage)
    return parts


def _argmax_by_class(values: Tensor, classes: Tensor, num_classes: int) -> Tensor:
    """Row of the largest value in each class, the first of equals; 0 for an empty class."""
    peaks = values.new_full((num_classes,), -torch.inf)
    peaks.scatter_reduce_(0, classes, values, reduce="amax")
    rows = torch.arange(len(values), device=values.device)
    rows = torch.where(values == peaks[classes], rows, len(values))
    first = rows.new_full((num_classes,), len(values))
    first.scatter_reduce_(0, classes, rows, reduce="amin")
    return torch.where(first < len(values), first, 0)


def _present(classes: Tensor, num_classes: int) -> Tensor:
    return torch.bincount(classes, minlength=num_classes) > 0
