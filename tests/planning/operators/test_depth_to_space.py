"""DepthToSpace and SpaceToDepth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

BN = "BatchNormalization"


def depth_to_space(channels: int, block: int, mode: str) -> str:
    return (
        f"g (double[N, {channels * block**2}, 2, 3] x) => "
        f"(double[N, {channels}, {2 * block}, {3 * block}] y) "
        f'{{ y = DepthToSpace <blocksize = {block}, mode = "{mode}"> (x) }}'
    )


def space_to_depth(channels: int, block: int) -> str:
    return (
        f"g (double[N, {channels}, {2 * block}, {3 * block}] x) => "
        f"(double[N, {channels * block**2}, 2, 3] y) "
        f"{{ y = SpaceToDepth <blocksize = {block}> (x) }}"
    )


@settings(max_examples=30, deadline=None)
@given(
    channels=st.integers(1, 4),
    block=st.integers(1, 3),
    mode=st.sampled_from(["DCR", "CRD"]),
    seed=st.integers(0, 1 << 16),
)
def test_small_channels_reach_every_pixel_of_their_block(
    harness: Any, channels: int, block: int, mode: str, seed: int
) -> None:
    small = harness.affine(seed, (1, channels, 1, 1), (1,))
    node = harness.one(depth_to_space(channels, block, mode))
    large = node.backward(small).affines[0]
    assert node.forward(large).affines[0].same_as(small)
    node = harness.one(space_to_depth(channels, block))
    large = node.forward(small).affines[0]
    assert node.backward(large).affines[0].same_as(small)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_an_affine_that_differs_within_blocks_is_refused(harness: Any, mode: str) -> None:
    node = harness.one(depth_to_space(2, 2, mode))
    with harness.refused("NF114"):
        node.forward(harness.affine(0, (1, 8, 1, 1), (1,)))
    node = harness.one(space_to_depth(2, 2))
    with harness.refused("NF114"):
        node.backward(harness.affine(0, (1, 8, 1, 1), (1,)))


def test_an_affine_of_the_other_order_is_refused(harness: Any) -> None:
    """What DCR tiles, CRD repeats: the one is not equal within the blocks of the other."""
    tiled = (
        harness.one(depth_to_space(3, 2, "DCR")).backward(harness.affine(0, (1, 3, 1, 1), (1,))).affines[0]
    )
    with harness.refused("NF114"):
        harness.one(depth_to_space(3, 2, "CRD")).forward(tiled)


def test_an_affine_on_pixels_is_refused(harness: Any) -> None:
    node = harness.one(depth_to_space(2, 2, "DCR"))
    with harness.refused("NF114"):
        node.backward(harness.affine(0, (1, 1, 4, 1), (2,)))
    with harness.refused("NF114"):
        node.forward(harness.affine(0, (1, 1, 1, 3), (3,)))


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_sub_pixel_convolution_takes_the_batchnorm_behind_it(harness: Any, mode: str) -> None:
    text = f"""g (double[N, 3, H, W] x) => (double[N, 2, P, Q] y) {{
        c = Conv (x, w, b) d = DepthToSpace <blocksize = 2, mode = "{mode}"> (c)
        y = {BN} (d, scale, bias, mean, var) }}"""
    constants = {**harness.weights(0, w=(8, 3, 1, 1), b=(8,)), **harness.batchnorm(1, 2)}
    harness.fold(text, constants).gone()


def test_focus_stem_takes_the_batchnorm_in_front_of_it(harness: Any) -> None:
    text = f"""g (double[N, 3, 4, 4] x) => (double[N, 5, 2, 2] y) {{
        n = {BN} (x, scale, bias, mean, var) s = SpaceToDepth <blocksize = 2> (n) y = Conv (s, w) }}"""
    constants = {**harness.weights(0, w=(5, 12, 1, 1)), **harness.batchnorm(1, 3)}
    harness.fold(text, constants).gone()


def test_blocks_are_checked_against_pixels(harness: Any) -> None:
    """Affines equal within blocks of 2 × 2 are not equal within blocks of 4 × 4."""
    affine = (
        harness.one(depth_to_space(4, 2, "CRD")).backward(harness.affine(0, (1, 4, 1, 1), (1,))).affines[0]
    )
    assert affine.scale.shape == (1, 16, 1, 1)
    assert np.unique(affine.scale).size == 4
    with harness.refused("NF114"):
        harness.one(depth_to_space(1, 4, "CRD")).forward(affine)
