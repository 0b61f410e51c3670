import pytest

from utils.errors import UserError, unknown_key

VALID = ["code_length", "batch_size", "learning_rate"]


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("code_lenght", "code_length"),
        ("batchsize", "batch_size"),
        ("lerning_rate", "learning_rate"),
    ],
)
def test_an_unknown_key_names_its_place_the_nearest_key_and_all_valid_ones(key, nearest):
    error = unknown_key(f"training_opt.{key}", key, VALID)
    assert isinstance(error, UserError)
    assert str(error) == (
        f"unknown key training_opt.{key}: did you mean '{nearest}'? "
        "(valid: batch_size, code_length, learning_rate)"
    )


def test_where_no_key_is_valid_none_is_suggested():
    assert str(unknown_key("params.x", "x", [])) == "unknown key params.x: (valid: none)"
