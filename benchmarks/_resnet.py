"""A plain ResNet-50 (He et al. 2015, with the stride in the 3 x 3 convolution), for machines without torchvision."""

from __future__ import annotations

from torch import nn

__all__ = ["ResNet50"]


def _norm_conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs))


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        outputs = 4 * width
        self.relu = nn.ReLU(inplace=True)
        self.body = nn.Sequential(
            _norm_conv(inputs, width, 1), nn.ReLU(inplace=True), _norm_conv(width, width, 3, stride),
            nn.ReLU(inplace=True), _norm_conv(width, outputs, 1),
        )  # fmt: skip
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else _norm_conv(inputs, outputs, 1, stride)

    def forward(self, x):
        return self.relu(self.body(x) + self.shortcut(x))


class ResNet50(nn.Sequential):
    """(B, channels, H, W) to (B, classes)."""

    def __init__(self, channels: int, classes: int):
        layers = [_norm_conv(channels, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
        inputs = 64
        for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for number in range(blocks):
                layers.append(_Bottleneck(inputs, width, stride if number == 0 else 1))
                inputs = 4 * width
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))
