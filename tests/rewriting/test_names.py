"""Names: what keeps its meaning keeps its name, what changes gets a free one (docs/decisions/0002)."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

CONV_BN = "c = Conv (x, w) n = BatchNormalization (c, s, b, m, v) y = Sigmoid (n)"
HEAD = "g (float[N, 3, H, W] x) => (float[N, 4, H2, W2] y)"


def conv_bn(check: Any, **names: str) -> onnx.ModelProto:
    """Conv, BatchNormalization, Sigmoid, with values renamed."""
    model = check.model(f"{HEAD} {{ {CONV_BN} }}", check.weights(w=(4, 3, 1, 1)) | check.batchnorm(4))
    for node in model.graph.node:
        node.input[:] = [names.get(n, n) for n in node.input]
        node.output[:] = [names.get(n, n) for n in node.output]
    for entry in (*model.graph.initializer, *model.graph.input, *model.graph.output):
        entry.name = names.get(entry.name, entry.name)
    return model


def values(model: onnx.ModelProto) -> set[str]:
    return {name for node in model.graph.node for name in node.output}


def test_the_survivor_takes_the_name_of_the_affine(check: Any) -> None:
    outcome = check(conv_bn(check))
    assert values(outcome.proto) == {"n", "y"}
    assert outcome.proto.graph.node[0].op_type == "Conv" and outcome.proto.graph.node[0].output == ["n"]


def test_a_weight_keeps_its_name_where_the_old_one_is_gone(check: Any) -> None:
    outcome = check(conv_bn(check))
    assert "w" in {t.name for t in outcome.proto.graph.initializer}


@pytest.mark.parametrize("stem", ["w_1", "c_bias", "n_bias", "c_folded", "n_folded", "c_affine", "n_scale"])
def test_names_that_a_fold_might_make_are_taken(check: Any, stem: str) -> None:
    """The user's own value has the name that a new initializer or value would get."""
    model = check.model(
        f"""{HEAD.replace("y)", "y, float[4] o)")} {{
            {CONV_BN}
            {stem} = Identity (p)
            o = Sigmoid ({stem})
        }}""",
        check.weights(w=(4, 3, 1, 1), p=4) | check.batchnorm(4),
    )
    check(model)
    model = check.model(
        f"""{HEAD.replace("y)", "y, float[4] o)")} {{
            {CONV_BN}
            o = Add ({stem}, {stem})
        }}""",
        check.weights(w=(4, 3, 1, 1), **{stem: 4}) | check.batchnorm(4),
    )
    check(model)


def test_a_name_taken_inside_a_subgraph(check: Any) -> None:
    model = check.model(
        f"""g (float[N, 3, H, W] x, bool p) => (float[N, 4, H2, W2] y, float[4] o) {{
            {CONV_BN}
            o = If (p) <
                then_branch = t () => (float[4] c_bias) {{ c_bias = Identity (q) }},
                else_branch = e () => (float[4] w_1) {{ w_1 = Neg (q) }}
            >
        }}""",
        check.weights(w=(4, 3, 1, 1), q=4) | check.batchnorm(4),
    )
    check(model, feeds={"p": np.array(True)})


def test_a_value_that_loses_its_scale_is_renamed(check: Any) -> None:
    """The affine goes forward through Relu: what lies between means something else and has a new name."""
    model = check.model(
        """g (float[N, 3, H, W] x) => (float[N, 4, H2, W2] y) {
            t = Sigmoid (x)
            n = Mul (t, k)
            r = Relu (n)
            y = Conv (r, w)
        }""",
        check.weights(w=(4, 3, 3, 3)) | {"k": np.linspace(1, 2, 3, dtype=np.float32).reshape(3, 1, 1)},
    )
    outcome = check(model)
    assert "r" not in values(outcome.proto) and "n" not in values(outcome.proto)
    assert {"t", "y"} <= values(outcome.proto)


def test_an_unread_sibling_is_renamed_with_what_it_comes_from(check: Any) -> None:
    """Half of a Split is read and takes the affine from behind; the other half means something else, too."""
    model = check.model(
        """g (float[N, 3, H, W] x) => (float[N, 4, H2, W2] y) {
            c = Conv (x, w)
            p, q = Split <axis = 3, num_outputs = 2> (c)
            n = Mul (p, k)
            y = Sigmoid (n)
        }""",
        check.weights(w=(4, 3, 1, 1), k=(4, 1, 1)),
        opset=18,
    )
    outcome = check(model, feeds={"x": check.weights(x=(2, 3, 4, 4))["x"]}).gone("Conv", "Split", "Sigmoid")
    assert "q" not in values(outcome.proto)


def test_the_annotations_of_the_survivor_are_those_of_the_affine(check: Any) -> None:
    model = onnx.shape_inference.infer_shapes(conv_bn(check))
    for info in model.graph.value_info:
        info.doc_string = f"about {info.name}"
    outcome = check(model)
    info = {i.name: i for i in outcome.proto.graph.value_info}
    assert "c" not in info
    assert info["n"].doc_string == "about n"


def test_order_and_types_of_outputs_stay(check: Any) -> None:
    """The affine's result is an output, listed first, its reader's result second; both keep their place."""
    model = check.model(
        """g (float[N, 3, H, W] x) => (float[N, 4, H2, W2] n, float[N, 4, H2, W2] y) {
            c = Conv (x, w) n = BatchNormalization (c, s, b, m, v) y = Sigmoid (n)
        }""",
        check.weights(w=(4, 3, 1, 1)) | check.batchnorm(4),
    )
    check(model).gone("Conv", "Sigmoid")


def test_a_value_listed_twice_as_output(check: Any) -> None:
    model = check.model(
        """g (float[N, 3, H, W] x) => (float[N, 4, H2, W2] y) {
            c = Conv (x, w) y = BatchNormalization (c, s, b, m, v)
        }""",
        check.weights(w=(4, 3, 1, 1)) | check.batchnorm(4),
    )
    model.graph.output.append(model.graph.output[0])
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError:
        pytest.skip("this onnx does not allow it")
    check(model).gone("Conv")


def test_names_with_strange_characters(check: Any) -> None:
    check(conv_bn(check, c="layer/conv:0", n="π (norm)", w="a.b.weight::1", b="β")).gone("Conv", "Sigmoid")


def test_nodes_without_names_stay_without(check: Any) -> None:
    outcome = check(conv_bn(check))
    assert {n.name for n in outcome.proto.graph.node} == {""}


def test_node_names_and_docs_are_kept(check: Any) -> None:
    model = conv_bn(check)
    model.graph.node[0].name, model.graph.node[0].doc_string = "conv one", "first"
    model.graph.node[2].name = "act"
    model.graph.name, model.graph.doc_string = "net", "a net"
    model.producer_name, model.producer_version, model.domain = "tool", "7", "example"
    model.doc_string, model.model_version = "doc", 12
    entry = model.metadata_props.add()
    entry.key, entry.value = "author", "somebody"
    proto = check(model).proto
    assert [n.name for n in proto.graph.node] == ["conv one", "act"]
    assert proto.graph.node[0].doc_string == "first"
    for field in ("producer_name", "producer_version", "domain", "doc_string", "model_version"):
        assert getattr(proto, field) == getattr(model, field)
    assert (proto.graph.name, proto.graph.doc_string) == ("net", "a net")
    assert list(proto.metadata_props) == [entry]
