import pytest
import torch

from loss.hash_centers import hadamard, hash_centers, random_centers


@pytest.mark.parametrize("order", [1, 2, 8, 64])
def test_rows_of_a_hadamard_matrix_are_orthogonal(order):
    matrix = hadamard(order)
    assert set(matrix.unique().tolist()) <= {-1.0, 1.0}
    assert torch.equal(matrix @ matrix.T, order * torch.eye(order))


@pytest.mark.parametrize(("num_classes", "bits"), [(10, 32), (32, 32), (100, 64), (8, 4)])
def test_centres_are_orthogonal_or_opposite_where_a_hadamard_matrix_has_enough_rows(
    num_classes, bits
):
    centers = hash_centers(num_classes, bits)
    assert centers.shape == (num_classes, bits)
    products = (centers @ centers.T).fill_diagonal_(0)
    assert set(products.unique().tolist()) <= {0.0, -float(bits)}


@pytest.mark.parametrize(("num_classes", "bits"), [(100, 48), (100, 32), (5, 7)])
def test_elsewhere_centres_are_distinct_codes_with_half_their_bits_set(num_classes, bits):
    centers = hash_centers(num_classes, bits)
    assert centers.shape == (num_classes, bits)
    assert set(centers.unique().tolist()) == {-1.0, 1.0}
    assert ((centers < 0).sum(1) == bits // 2).all()
    assert len(centers.unique(dim=0)) == num_classes


def test_random_centres_are_farther_apart_than_a_single_draw():
    centers = random_centers(100, 48)
    order = torch.rand(100, 48, generator=torch.Generator().manual_seed(0)).argsort(1)
    single = torch.where(order < 24, -1.0, 1.0)
    nearest = [(c @ c.T).fill_diagonal_(-99).max() for c in (centers, single)]
    assert nearest[0] < nearest[1]


@pytest.mark.parametrize("bits", [32, 48])
def test_centres_do_not_depend_on_the_state_of_the_random_generator(bits):
    torch.manual_seed(1)
    one = hash_centers(20, bits)
    torch.manual_seed(2)
    assert torch.equal(one, hash_centers(20, bits))
