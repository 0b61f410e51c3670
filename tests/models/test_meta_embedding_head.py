import numpy as np
import pytest
import torch

from models import direct_head, meta_embedding_head
from models.cosine_attention import cosine_attention
from utils.errors import UserError

IN, DIM, BITS, CLASSES, ROWS = 5, 7, 4, 3, 6


def head(seed=0):
    torch.manual_seed(seed)
    return meta_embedding_head.create_model(IN, DIM, BITS, CLASSES, ROWS)


def batch(count=8, seed=1):
    return torch.randn(count, IN, generator=torch.Generator().manual_seed(seed))


def memory(seed=2):
    return torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(seed))


def by_hand(state, x):
    """LTHNet's equations for one image, in numpy."""

    def linear(name, value):
        return state[f"{name}.weight"] @ value + state[f"{name}.bias"]

    features = np.maximum(linear("feature_layer", x), 0)
    scores = np.exp(linear("hallucinator", features))
    attention = scores / scores.sum()
    memory_feature = sum(attention[r] * state["memory"][r] for r in range(ROWS))
    selector = np.tanh(linear("selector", features))
    embeddings = features + selector * memory_feature
    codes = np.tanh(linear("hash_layer", embeddings))
    return {
        "features": features,
        "attention": attention,
        "selector": selector,
        "embeddings": embeddings,
        "codes": codes,
        "logits": linear("classifier", codes),
    }


def test_outputs_equal_the_equations_computed_image_by_image():
    model = head()
    model.set_memory(memory())
    state = {key: value.double().numpy() for key, value in model.state_dict().items()}
    outputs = model(batch())
    for i, x in enumerate(batch().double().numpy()):
        expected = by_hand(state, x)
        assert outputs.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(outputs[name][i].detach().numpy(), value, atol=1e-5)


def test_before_set_memory_it_is_the_direct_head():
    model = head()
    direct = direct_head.create_model(IN, DIM, BITS, CLASSES)
    shared = direct.state_dict().keys()
    direct.load_state_dict({key: model.state_dict()[key] for key in shared})
    for name, value in direct(batch()).items():
        assert torch.equal(model(batch())[name], value)


def test_set_memory_changes_codes_and_keeps_the_direct_feature():
    model = head()
    before = model(batch())
    model.set_memory(memory())
    after = model(batch())
    assert not torch.allclose(before["codes"], after["codes"])
    assert torch.equal(before["features"], after["features"])


def test_memory_is_saved_with_the_weights():
    model = head()
    model.set_memory(memory())
    other = head(seed=9)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.memory, memory())
    assert torch.equal(other(batch())["logits"], model(batch())["logits"])


def test_memory_is_not_trained_and_every_weight_is():
    model = head()
    model.set_memory(memory())
    assert "memory" not in dict(model.named_parameters())
    model(batch())["logits"].square().sum().backward()
    assert model.memory.grad is None
    assert torch.equal(model.memory, memory())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_a_memory_that_carries_a_graph_is_cut_off_from_it():
    model = head()
    source = memory().requires_grad_()
    model.set_memory(source * 2)
    assert not model.memory.requires_grad
    for _ in range(2):  # a second step must not run through the graph of the first
        model(batch())["logits"].sum().backward()
    assert source.grad is None


def test_codes_lie_between_minus_one_and_one_and_attention_sums_to_one():
    model = head()
    model.set_memory(memory())
    outputs = model(batch(200))
    assert outputs["codes"].abs().max() < 1
    assert outputs["selector"].abs().max() < 1
    torch.testing.assert_close(outputs["attention"].sum(1), torch.ones(200))


def test_no_memory_rows_is_a_user_error_that_names_the_way_out():
    with pytest.raises(UserError, match=r"direct_head\.py") as caught:
        meta_embedding_head.create_model(IN, DIM, BITS, CLASSES, 0)
    assert "\n" not in str(caught.value)


def cosine_head(**options):
    torch.manual_seed(0)
    model = meta_embedding_head.create_model(
        IN, DIM, BITS, CLASSES, ROWS, attention="cosine", **options
    )
    model.set_memory(memory(), torch.randn(ROWS, IN, generator=torch.Generator().manual_seed(3)))
    return model


@pytest.mark.parametrize("temperature", [0.5, 14.0])
def test_cosine_attention_equals_its_formula_computed_image_by_image(temperature):
    model = cosine_head(temperature=temperature, selector=2.0)
    keys = model.keys.double().numpy()
    centre = sum(keys) / ROWS
    outputs = model(batch())
    for i, x in enumerate(batch().double().numpy()):
        scores = []
        for key in keys:
            a, b = x - centre, key - centre
            scores.append(np.exp(temperature * (a @ b) / np.sqrt((a @ a) * (b @ b))))
        attention = np.array(scores) / sum(scores)
        np.testing.assert_allclose(outputs["attention"][i].detach(), attention, atol=1e-5)
        added = 2 * sum(o * row for o, row in zip(attention, memory().numpy(), strict=True))
        expected = outputs["features"][i].detach().numpy() + added
        np.testing.assert_allclose(outputs["embeddings"][i].detach(), expected, atol=1e-5)


def test_adjusted_attention_is_cosine_attention_divided_by_powers_of_the_counts():
    counts = torch.tensor([500, 1, 20, 20, 7, 0])
    plain, adjusted = cosine_head(), cosine_head(adjustment=0.6)
    adjusted.set_memory(plain.memory, plain.keys, counts)
    weights = plain(batch())["attention"].double() / counts.clamp(min=1).double() ** 0.6
    expected = weights / weights.sum(1, keepdim=True)
    torch.testing.assert_close(adjusted(batch())["attention"].double(), expected, atol=1e-6, rtol=0)


def test_counts_are_saved_with_an_adjusted_head_and_change_no_other():
    adjusted = cosine_head(adjustment=1.0)
    adjusted.set_memory(adjusted.memory, adjusted.keys, torch.arange(ROWS))
    other = cosine_head(adjustment=1.0)
    other.load_state_dict(adjusted.state_dict())
    assert torch.equal(other(batch())["codes"], adjusted(batch())["codes"])
    plain = cosine_head()
    before = plain(batch())["codes"]
    plain.set_memory(plain.memory, plain.keys, torch.arange(ROWS))
    assert torch.equal(plain(batch())["codes"], before)
    assert "counts" not in plain.state_dict()


def test_a_power_is_of_the_inputs_of_attention_alone_and_its_outputs_make_the_keys():
    plain, rooted = cosine_head(selector=1.0), cosine_head(selector=1.0, power=0.5)
    positive = batch().abs()
    torch.testing.assert_close(rooted(positive)["inputs"], positive.sqrt())
    expected = plain(positive.sqrt())["attention"]
    torch.testing.assert_close(rooted(positive)["attention"], expected)
    assert torch.equal(rooted(positive)["features"], plain(positive)["features"])


def test_whitening_is_saved_with_a_head_that_shrinks_and_is_in_no_other():
    torch.manual_seed(0)
    white = cosine_head(shrinkage=2.0)
    assert torch.equal(white(batch())["codes"], cosine_head()(batch())["codes"])  # the identity yet
    matrix = torch.randn(IN, IN)
    white.set_memory(white.memory, white.keys, whitening=matrix)
    keys = white.keys
    expected = cosine_attention(batch(), keys, 14.0, matrix)
    torch.testing.assert_close(white(batch())["attention"], expected)
    other = cosine_head(shrinkage=2.0)
    other.load_state_dict(white.state_dict())
    assert torch.equal(other(batch())["codes"], white(batch())["codes"])
    plain = cosine_head()
    before = plain(batch())["codes"]
    plain.set_memory(plain.memory, plain.keys, whitening=matrix)
    assert torch.equal(plain(batch())["codes"], before)
    assert "whitening" not in plain.state_dict()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"power": 0.0, "attention": "cosine"}, "power is 0"),
        ({"power": 0.5}, "power is 0.5"),
        ({"shrinkage": 0.0, "attention": "cosine"}, "shrinkage is 0"),
        ({"shrinkage": 1.0}, "shrinkage is 1"),
    ],
)
def test_a_power_or_shrinkage_of_0_or_of_learned_attention_is_one_line(options, words):
    with pytest.raises(UserError, match=words) as caught:
        meta_embedding_head.create_model(IN, DIM, BITS, CLASSES, ROWS, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"adjustment": -1.0}, {"adjustment": 0.5}])
def test_an_adjustment_below_0_or_of_learned_attention_is_one_line(options):
    attention = "cosine" if options["adjustment"] < 0 else "learned"
    with pytest.raises(UserError, match="adjustment is"):
        meta_embedding_head.create_model(
            IN, DIM, BITS, CLASSES, ROWS, attention=attention, **options
        )


def test_cosine_attention_and_a_fixed_selector_have_no_weights_but_those_of_the_direct_head():
    direct = direct_head.create_model(IN, DIM, BITS, CLASSES)
    trained = dict(cosine_head(selector=1.0).named_parameters())
    assert trained.keys() == dict(direct.named_parameters()).keys()


def test_cosine_attention_with_an_empty_memory_is_the_direct_head():
    model = cosine_head(selector=1.0)
    model.set_memory(torch.zeros(ROWS, DIM), torch.zeros(ROWS, IN))
    outputs = model(batch())
    assert torch.equal(outputs["embeddings"], outputs["features"])
    assert torch.isfinite(outputs["attention"]).all()


def test_gradients_of_cosine_attention_reach_the_inputs_and_not_the_memory():
    model = cosine_head()
    inputs = batch().requires_grad_()
    model(inputs)["attention"][:, 0].sum().backward()
    assert inputs.grad.abs().sum() > 0
    assert not model.memory.requires_grad and not model.keys.requires_grad


@pytest.mark.parametrize(
    ("options", "said"),
    [({"attention": "cosin"}, "'cosin'"), ({"temperature": 0}, "temperature is 0")],
)
def test_options_that_mean_nothing_are_user_errors(options, said):
    with pytest.raises(UserError, match=said) as caught:
        meta_embedding_head.create_model(IN, DIM, BITS, CLASSES, ROWS, **options)
    assert "\n" not in str(caught.value)
