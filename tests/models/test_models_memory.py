import pytest
import torch

from models.memory import (
    build_memory,
    choose_samples,
    class_centroids,
    dpp_samples,
    fill_memory,
    row_counts,
    whitening,
)

SIZES = (9, 1, 5, 2, 13, 3)


def long_tail(sizes=SIZES, dim=16, seed=0, positive=True):
    """Features and classes of a small long-tailed set, in shuffled order."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    classes = classes[torch.randperm(len(classes), generator=generator)]
    features = torch.randn(len(classes), dim, generator=generator)
    return (features.relu() if positive else features), classes


def explicit_kernel(rows, centroid):
    directions = rows.double() / rows.double().norm(dim=1, keepdim=True)
    quality = torch.exp(directions @ (centroid.double() / centroid.double().norm()))
    return quality[:, None] * (directions @ directions.T) * quality[None, :]


def naive_greedy(kernel, k):
    """Add, k times, the item that makes the sub-matrix's log-determinant largest."""
    chosen = []
    for _ in range(min(k, len(kernel))):
        volumes = {}
        for candidate in set(range(len(kernel))) - set(chosen):
            subset = [*chosen, candidate]
            volumes[candidate] = torch.logdet(kernel[subset][:, subset]).item()
        chosen.append(max(volumes, key=volumes.get))
    return chosen


def blocks(memory, num_classes):
    return memory.view(num_classes, -1, memory.shape[1])


def test_centroids_are_the_class_means():
    features, classes = long_tail()
    centroids = class_centroids(features, classes, len(SIZES))
    for c in range(len(SIZES)):
        rows = [features[i] for i in range(len(features)) if classes[i] == c]
        torch.testing.assert_close(centroids[c], sum(rows) / len(rows))


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_samples_equal_a_naive_greedy_on_the_explicit_kernel(k, positive, seed):
    features, classes = long_tail(seed=seed, positive=positive)
    centroids = class_centroids(features, classes, len(SIZES))
    chosen = dpp_samples(features, classes, centroids, k)
    for c, size in enumerate(SIZES):
        members = torch.nonzero(classes == c).flatten().tolist()
        expected = naive_greedy(explicit_kernel(features[members], centroids[c]), k)
        missing = [-1] * (k - min(k, size))
        assert chosen[c].tolist() == [members[i] for i in expected] + missing


def test_first_sample_is_the_nearest_to_the_centroid_in_angle():
    features, classes = long_tail(seed=7)
    centroids = class_centroids(features, classes, len(SIZES))
    chosen = dpp_samples(features, classes, centroids, 1)
    for c in range(len(SIZES)):
        members = torch.nonzero(classes == c).flatten()
        cosines = torch.cosine_similarity(features[members], centroids[c][None])
        assert chosen[c, 0] == members[cosines.argmax()]


@pytest.mark.parametrize("k", [0, 1, 3])
def test_memory_is_class_by_class_centroid_first_then_samples(k):
    features, classes = long_tail(sizes=(6, 4, 8))
    memory = build_memory(features, classes, 3, k)
    assert memory.shape == ((k + 1) * 3, features.shape[1])
    centroids = class_centroids(features, classes, 3)
    chosen = dpp_samples(features, classes, centroids, k)
    for c in range(3):
        assert torch.equal(memory[c * (k + 1)], centroids[c])
        for j in range(k):
            assert torch.equal(memory[c * (k + 1) + 1 + j], features[chosen[c, j]])


def test_a_class_with_fewer_images_than_k_repeats_its_centroid():
    features, classes = long_tail(sizes=(7, 2, 1))
    memory = blocks(build_memory(features, classes, 3, 4), 3)
    for c, size in ((1, 2), (2, 1)):
        images = {tuple(row) for row in features[classes == c].tolist()}
        assert {tuple(row) for row in memory[c, 1 : 1 + size].tolist()} == images
        for row in memory[c, 1 + size :]:
            assert torch.equal(row, memory[c, 0])


def test_a_class_without_images_has_zero_rows():
    features, classes = long_tail(sizes=(5, 0, 3, 0))
    memory = build_memory(features, classes, 4, 3)
    assert torch.isfinite(memory).all()
    assert (blocks(memory, 4)[[1, 3]] == 0).all()
    filled = build_memory(features, classes.div(2, rounding_mode="floor"), 2, 3)
    assert torch.equal(blocks(memory, 4)[[0, 2]], blocks(filled, 2))


@pytest.mark.parametrize("dim", [8, 64, 2000])
@pytest.mark.parametrize("shift", [0, 3])  # 3: all images nearly parallel
@pytest.mark.parametrize("rescaled", [False, True])
def test_repeated_images_are_chosen_once_and_the_centroid_fills_up(dim, shift, rescaled):
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        distinct = (torch.randn(20, dim, generator=generator) + shift).repeat_interleave(6, 0)
        scale = torch.rand(120, 1, generator=generator) + 0.5 if rescaled else 1
        classes = torch.arange(5).repeat_interleave(24)  # four distinct directions a class
        features = distinct * scale
        centroids = class_centroids(features, classes, 5)
        chosen = dpp_samples(features, classes, centroids, 8)
        for c in range(5):
            assert sorted((chosen[c, :4] // 6).tolist()) == [4 * c + i for i in range(4)]
        assert (chosen[:, 4:] == -1).all()
        memory = blocks(build_memory(features, classes, 5, 8), 5)
        assert torch.equal(memory[:, 5:], memory[:, :1].expand(-1, 4, -1))


def test_all_zero_features_give_a_finite_memory():
    features, classes = long_tail(sizes=(4, 3))
    features[classes == 1] = 0  # a dead feature layer
    features[0] = 0
    memory = build_memory(features, classes, 2, 3)
    assert torch.isfinite(memory).all()
    assert (blocks(memory, 2)[1] == 0).all()


def test_memory_does_not_depend_on_the_order_of_the_images():
    features, classes = long_tail(seed=3)
    memory = build_memory(features, classes, len(SIZES), 3)
    for seed in range(5):
        order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
        shuffled = build_memory(features[order], classes[order], len(SIZES), 3)
        torch.testing.assert_close(shuffled, memory)


def test_an_image_with_several_labels_counts_in_each_of_its_classes():
    features, _ = long_tail(sizes=(10,), seed=5)
    labels = torch.rand(10, 3, generator=torch.Generator().manual_seed(1)) < 0.6
    assert (labels.sum(1) > 1).any()
    images, classes = torch.nonzero(labels, as_tuple=True)
    memory = blocks(build_memory(features[images], classes, 3, 2), 3)
    for c in range(3):
        own = features[labels[:, c]]
        alone = build_memory(own, torch.zeros(len(own), dtype=torch.long), 1, 2)
        torch.testing.assert_close(memory[c], alone)


def test_half_precision_features_give_a_memory_of_their_type():
    features, classes = long_tail(seed=2)
    memory = build_memory(features.bfloat16(), classes, len(SIZES), 2)
    assert memory.dtype == torch.bfloat16
    exact = build_memory(features, classes, len(SIZES), 0)
    centroids = blocks(memory, len(SIZES))[:, 0].float()
    torch.testing.assert_close(centroids, exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("k", [0, 2])
def test_each_row_has_the_count_of_its_class(k):
    features, classes = long_tail()
    counts = row_counts(classes, choose_samples(features, classes, len(SIZES), k))
    assert counts.tolist() == [size for size in SIZES for _ in range(1 + k)]


def test_other_values_of_the_same_images_fill_the_same_rows():
    features, classes = long_tail()
    others = torch.randn(len(features), 5, generator=torch.Generator().manual_seed(1))
    chosen = choose_samples(features, classes, len(SIZES), 2)
    rows = blocks(fill_memory(others, classes, chosen), len(SIZES))
    for c in range(len(SIZES)):
        members = [others[i] for i in range(len(features)) if classes[i] == c]
        centroid = sum(members) / len(members)
        torch.testing.assert_close(rows[c, 0], centroid)
        for slot, row in enumerate(chosen[c].tolist()):
            torch.testing.assert_close(rows[c, 1 + slot], others[row] if row >= 0 else centroid)


def correlated():
    """Values of three classes with a covariance of their own, and classes."""
    generator = torch.Generator().manual_seed(0)
    mixing, centres = (torch.randn(n, 4, generator=generator) for n in (4, 3))
    classes = torch.arange(60) % 3
    return torch.randn(60, 4, generator=generator) @ mixing + 5 * centres[classes], classes


def covariance_within(values, classes):
    parts = [values[classes == c] - values[classes == c].mean(0) for c in classes.unique()]
    residuals = torch.cat(parts).double()
    return residuals.T @ residuals / len(values)


def test_little_shrinkage_makes_the_covariance_within_classes_the_identity():
    values, classes = correlated()
    white = values @ whitening(values, classes, 3, 1e-9)
    torch.testing.assert_close(
        covariance_within(white, classes), torch.eye(4).double(), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("shrinkage", [0.3, 3.0])
def test_whitening_is_a_root_of_the_shrunk_covariance_s_inverse(shrinkage):
    values, classes = correlated()
    covariance = covariance_within(values, classes)
    shrunk = covariance + shrinkage * covariance.diagonal().mean() * torch.eye(4).double()
    found = whitening(values, classes, 3, shrinkage).double()
    torch.testing.assert_close(found @ found.T, shrunk.inverse(), atol=1e-6, rtol=1e-5)


def test_whitening_of_values_that_are_all_alike_is_finite():
    assert whitening(torch.zeros(5, 3), torch.tensor([0, 0, 1, 1, 4]), 6, 1.0).isfinite().all()
