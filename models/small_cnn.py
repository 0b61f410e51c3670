"""A small convolutional network for images of 8 to 32 pixels, such as the digits."""

from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Three convolution blocks and global average pooling: (B, 3, S, S) to (B, `out_features`).

    `mean` and `std` normalise pixels in [0, 1] to [-1, 1].
    """

    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_features = 4 * width
        self.layers = nn.Sequential(
            *_block(3, width),
            *_block(width, 2 * width),
            nn.MaxPool2d(2),
            *_block(2 * width, 4 * width),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * width, 4 * width),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]


def create_model(width: int = 32) -> SmallCNN:
    """Build the network; `width` is the channel count of the first block."""
    return SmallCNN(width)
