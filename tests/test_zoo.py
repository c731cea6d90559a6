"""Folds of every network in models/, by both exporters, static and with an open batch."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch")

from benchmarks import left  # noqa: E402
from models.export import export  # noqa: E402
from models.zoo import ZOO  # noqa: E402
from normfold.codes import CODES  # noqa: E402
from normfold.evaluation import Evaluator  # noqa: E402
from normfold.folding import fold_model  # noqa: E402

pytestmark = pytest.mark.torch

CASES = [(name, *variant) for name in sorted(ZOO) for variant in left.exports(name)]

TOLERANCE = 1e-12
# The exporters fold some normalisations themselves, and round to float32.
EXPORTED = 1e-5


def expected(batchnorms: int, **codes: int) -> tuple[int, Counter[str]]:
    """BatchNormalization nodes that are left, and the reasons of what is still computed at run time."""
    return batchnorms, Counter(codes)


# Whoever lowers a number here has folded more; nothing may raise one.
LEFT = {
    "acnet": expected(0),
    "causal": expected(0),
    # ε of two spelled-out normalisations over channels; γ and β of one stand in front of a zero-padded Conv.
    "convnext": expected(1, NF103=1, NF114=2),
    "dcgan": expected(0),
    "densenet": expected(7, NF103=7),
    # γ and β of GroupNorms, written behind an InstanceNormalization over groups, in front of SiLU.
    "diffusion": expected(9, NF110=9),
    "diverse_branch": expected(0),
    "even_kernels": expected(0),
    "flatten": expected(1, NF117=1),
    "handwritten": expected(1, NF117=1),
    "large_kernel": expected(0),
    # Relative position biases in front of Softmax, of a product that has no bias.
    "levit": expected(0, NF118=2),
    "mixer": expected(0),
    # x + 3 of Hardswish, four times; scale and shift of one, and of the Conv behind it, are one map.
    "mobile_ocr": expected(0, NF103=4, NF110=2),
    "mobileone": expected(0),
    "pitch": expected(4, NF117=4),
    "pointnet": expected(1, NF117=1),
    "poolformer": expected(0, NF110=4),
    "preact_resnet": expected(4, NF103=4),
    "prenorm": expected(0),
    "recurrent": expected(0),
    "repvgg": expected(0),
    "resampling": expected(1, NF110=1),
    "resnet": expected(0),
    "senet": expected(1, NF122=1),
    "shared_head": expected(0),
    "shufflenet": expected(0),
    "standardised": expected(10, NF110=10),
    "style": expected(0),
    "tabular": expected(0),
    "tiny_yolo": expected(1, NF103=1),
    "tracked_style": expected(0),
    "unet": expected(0),
    "video": expected(0),
}
LEFT_OTHERWISE = {
    ("levit", "torchscript", True): expected(0, NF113=2),
}


@pytest.mark.parametrize(("name", "exporter", "dynamic"), CASES)
def test_fold(name: str, exporter: Any, dynamic: bool) -> None:
    entry = ZOO[name]
    folded = fold_model(ir.load(export(name, exporter, dynamic)))

    found = left.left_of(folded)
    assert (found.batchnorms[1], found.codes) == LEFT_OTHERWISE.get((name, exporter, dynamic), LEFT[name])
    for site in folded.sites:
        assert site.action != "kept" or (site.code in CODES and site.reason), site
    assert found.nodes[1] <= found.nodes[0]
    assert not fold_model(folded.model).changed

    example = entry.example(batch=3 if dynamic else 1, seed=1)
    feeds = {n: v.numpy() for n, v in zip(entry.inputs, example, strict=True)}
    names = [value.name for value in folded.original.graph.outputs]
    before = Evaluator(folded.original).run(feeds, names)
    after = Evaluator(folded.model, constants=folded.exact).run(feeds, names)
    with torch.no_grad():
        result = entry.build().double()(*(value.double() for value in example))
    network = [result] if torch.is_tensor(result) else list(result)
    for output, truth in zip(names, network, strict=True):
        scale = np.abs(before[output]).max()
        np.testing.assert_allclose(after[output], before[output], rtol=0, atol=TOLERANCE * scale)
        np.testing.assert_allclose(before[output], truth.numpy(), rtol=0, atol=EXPORTED * scale)


@pytest.mark.parametrize("name", [name for name in sorted(ZOO) if ZOO[name].mergeable])
def test_as_few_nodes_as_with_branches_merged_at_source_level(name: str) -> None:
    for exporter, dynamic in left.exports(name):
        folded = fold_model(ir.load(export(name, exporter, dynamic)))
        merged = ir.load(export(name, exporter, dynamic, merged=True))
        assert left.left_of(folded).nodes[1] <= len(list(merged.graph.all_nodes()))


def test_the_page_is_up_to_date() -> None:
    assert left.PAGE.read_text(encoding="utf-8") == left.render(), "run python -m benchmarks left"
