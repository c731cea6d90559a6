"""ResNet-like, after and before activation: ``Conv → BN``, and the residue nobody folds."""

from __future__ import annotations

from torch import Tensor, nn

from models.families.blocks import classifier, conv_bn, conv_bn_relu


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BN, a projected shortcut where shapes change, ReLU after the sum."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn_relu(inputs, outputs, stride=stride), conv_bn(outputs, outputs, 3))
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else conv_bn(inputs, outputs, 1, stride=stride)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.body(x) + self.shortcut(x))
        return y


class ResNet(nn.Sequential):
    """Images ``[N, 3, 32, 32]`` to logits ``[N, 10]``."""

    def __init__(self) -> None:
        super().__init__(
            conv_bn_relu(3, 16, 7, stride=2),
            nn.MaxPool2d(3, 2, 1),
            BasicBlock(16, 16),
            BasicBlock(16, 24, 2),
            BasicBlock(24, 24),
            classifier(24),
        )


class PreActivationBlock(nn.Module):
    """``BN → ReLU → Conv`` twice; the sum is read by the next block's BN and by its shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(y)
        y = self.conv2(self.activation(self.norm2(self.conv1(y))))
        total: Tensor = y + shortcut
        return total


class PreActivationResNet(nn.Sequential):
    """Images ``[N, 3, 32, 32]`` to logits ``[N, 10]``; ends in ``BN → ReLU``."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False),
            PreActivationBlock(16, 16),
            PreActivationBlock(16, 24, 2),
            PreActivationBlock(24, 24),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            classifier(24),
        )
