"""Shapes of every value, those of Constant nodes included."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from normfold.preparation.workspace import Workspace


def test_constant_nodes_have_shapes() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 6] x) => (float[N, 2] y, float[N, 4] z) {
            parts = Constant <value = int64[2] {2, 4}> ()
            y, z = Split <axis = 1> (x, parts)
        }"""
    )
    workspace = Workspace(ir.from_proto(model))
    constant = next(iter(workspace.model.graph)).outputs[0]
    assert workspace.dims(constant) == (2,)
    assert workspace.shapes.dtype(constant) == ir.DataType.INT64


def test_a_batchnorm_has_as_many_channels_as_its_scale() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N, L, H] x, float[4] s, float[4] b, float[4] m, float[4] v) => (float[N, C, H] y) {
            n = BatchNormalization (x, s, b, m, v)
            y = Relu (n)
        }"""
    )
    workspace = Workspace(ir.from_proto(model))
    assert [workspace.dims(node.outputs[0]) for node in workspace.model.graph] == [("N", 4, "H")] * 2
    assert workspace.dims(workspace.model.graph.inputs[0]) == ("N", "L", "H")


def test_a_constant_that_is_an_output_has_its_own_shape() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (int64[3] i) => (float[3, 2] y, float[A, B] table, float[C] row)
        <float[4, 2] table = {1, 2, 3, 4, 5, 6, 7, 8}> {
            row = Constant <value = float[2] {2, 4}> ()
            t = Gather (table, i)
            y = Add (t, row)
        }"""
    )
    workspace = Workspace(ir.from_proto(model))
    table = workspace.model.graph.initializers["table"]
    row, gathered, _ = (node.outputs[0] for node in workspace.model.graph)
    assert [workspace.dims(v) for v in (table, row, gathered)] == [(4, 2), (2,), (3, 2)]


def test_a_declaration_that_leaves_sizes_open_does_not_hide_what_an_operator_implies() -> None:
    """onnx infers nothing through GroupNormalization, and the output is declared with a rank alone."""
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[N, 4, 6] x, float[4] s, float[4] b) => (float[A, B, C] y, float[N, 4, 6] z) {
            y = GroupNormalization <num_groups = 2> (x, s, b)
            z = Relu (y)
        }"""
    )
    for dim in model.graph.output[0].type.tensor_type.shape.dim:
        dim.Clear()
    workspace = Workspace(ir.from_proto(model))
    assert [workspace.dims(node.outputs[0]) for node in workspace.model.graph] == [("N", 4, 6)] * 2
