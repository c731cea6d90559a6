"""The registry of small networks. ``ZOO[name].build()`` gives one with random weights, ready for export.

``python -m models.export NAME`` writes one as ONNX; ``models/families/`` says what each is there for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from models.families.acnet import AcNet
from models.families.causal import Causal, EvenKernels
from models.families.convnext import ConvNext
from models.families.dcgan import Dcgan
from models.families.densenet import DenseNet
from models.families.diffusion import DiffusionUNet
from models.families.diverse_branch import DiverseBranchNet
from models.families.flatten import FlattenLinear
from models.families.handwritten import Handwritten
from models.families.large_kernel import LargeKernelNet
from models.families.levit import Levit
from models.families.mixer import Mixer
from models.families.mobile_ocr import MobileOcr
from models.families.mobileone import MobileOne
from models.families.pitch import Pitch
from models.families.pointnet import PointNet
from models.families.poolformer import PoolFormer
from models.families.prenorm import PreNorm
from models.families.recurrent import Recurrent
from models.families.repvgg import RepVgg
from models.families.resampling import Resampling
from models.families.resnet import PreActivationResNet, ResNet
from models.families.senet import SeNet
from models.families.shared_head import SharedHead
from models.families.shufflenet import ShuffleNet
from models.families.standardised import StandardisedResNet
from models.families.style import Style, TrackedStyle
from models.families.tabular import Tabular
from models.families.tiny_yolo import TinyYolo
from models.families.unet import UNet
from models.families.video import Video
from models.merging import has_branches, merge_branches
from models.randomise import randomise

BATCH = "batch"


@dataclass(frozen=True)
class Entry:
    """A network of the zoo.

    Attributes:
        network: makes it, with the weights its layers start with.
        inputs: shape of each graph input by name, in the order of ``forward``; axis 0 is a batch of one.
        outputs: names of the graph outputs.
        dynamic: axes besides axis 0 that a dynamic export leaves open, by input name.
        unexportable: kinds of export that torch cannot do, with the reason: exporter and "dynamic" or "bn".
    """

    network: Callable[[], nn.Module]
    inputs: Mapping[str, tuple[int, ...]]
    outputs: tuple[str, ...] = ("output",)
    dynamic: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    unexportable: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def build(self, seed: int = 0) -> nn.Module:
        """The network in evaluation mode; parameters and statistics depend on the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return randomise(self.network(), seed)

    @property
    def mergeable(self) -> bool:
        """Whether its authors would merge branches at source level."""
        return has_branches(self.build())

    def merged(self, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
        """The network rebuilt from the same weights with its parallel branches merged at source level."""
        return merge_branches(self.build(seed).to(dtype)).eval()

    def example(self, *, batch: int = 1, seed: int = 0) -> tuple[Tensor, ...]:
        """Normal inputs in the order of ``forward``, each channel of each sample about a level of its own.

        Without the levels a global average pool would see almost the same in every sample.
        """
        generator = torch.Generator().manual_seed(seed)

        def draw(shape: tuple[int, ...]) -> Tensor:
            level = torch.randn(batch, *shape[1:2], *[1] * len(shape[2:]), generator=generator)
            return level + torch.randn(batch, *shape[1:], generator=generator)

        return tuple(draw(shape) for shape in self.inputs.values())

    def dynamic_axes(self) -> dict[str, dict[int, str]]:
        """Every open axis of a dynamic export, by input name."""
        return {name: {0: BATCH, **self.dynamic.get(name, {})} for name in self.inputs}


def _images(size: int, channels: int = 3) -> dict[str, tuple[int, ...]]:
    return {"input": (1, channels, size, size)}


ZOO: dict[str, Entry] = {
    "acnet": Entry(AcNet, _images(32)),
    "causal": Entry(Causal, {"input": (1, 8, 24)}, dynamic={"input": {2: "time"}}),
    "convnext": Entry(ConvNext, {"images": (1, 3, 32, 32)}),
    "dcgan": Entry(Dcgan, {"latents": (1, 16)}, ("images", "sound")),
    "densenet": Entry(DenseNet, _images(32)),
    "diffusion": Entry(DiffusionUNet, {"images": (1, 4, 16, 16), "time": (1, 16)}),
    "diverse_branch": Entry(DiverseBranchNet, _images(16)),
    "even_kernels": Entry(EvenKernels, _images(16, 6)),
    "flatten": Entry(FlattenLinear, {"images": (1, 1, 12, 12)}),
    "handwritten": Entry(Handwritten, _images(16)),
    "large_kernel": Entry(LargeKernelNet, _images(64)),
    "levit": Entry(Levit, {"images": (1, 3, 32, 32)}),
    "mixer": Entry(Mixer, _images(32)),
    "mobile_ocr": Entry(MobileOcr, {"lines": (1, 3, 16, 64)}),
    "mobileone": Entry(MobileOne, _images(32)),
    "pitch": Entry(Pitch, {"frames": (1, 256)}),
    "pointnet": Entry(PointNet, {"points": (1, 3, 40)}, dynamic={"points": {2: "count"}}),
    "poolformer": Entry(PoolFormer, _images(32)),
    "preact_resnet": Entry(PreActivationResNet, _images(32)),
    "prenorm": Entry(PreNorm, _images(16)),
    "recurrent": Entry(Recurrent, {"features": (1, 10, 7)}),
    "repvgg": Entry(RepVgg, _images(32)),
    "resampling": Entry(Resampling, {"images": (1, 3, 16, 16)}),
    "resnet": Entry(ResNet, _images(32)),
    "senet": Entry(SeNet, _images(32)),
    "shared_head": Entry(SharedHead, {"images": (1, 3, 32, 32)}, ("fine", "coarse")),
    "shufflenet": Entry(ShuffleNet, _images(32)),
    "standardised": Entry(StandardisedResNet, _images(32)),
    "style": Entry(Style, _images(16)),
    "tabular": Entry(Tabular, {"rows": (1, 12)}, ("score", "value")),
    "tiny_yolo": Entry(TinyYolo, {"images": (1, 3, 64, 64)}, ("coarse", "fine")),
    "tracked_style": Entry(
        TrackedStyle,
        _images(16),
        unexportable={
            ("torchscript", "dynamic"): "tiles tracked statistics by a batch size that it must know",
        },
    ),
    "unet": Entry(UNet, {"images": (1, 3, 32, 32)}),
    "video": Entry(
        Video,
        {"clips": (1, 3, 4, 16, 16)},
        unexportable={
            ("dynamo", "bn"): "a Conv3d without bias gets one of shape [O, 2]; only the optimiser drops it"
        },
    ),
}
