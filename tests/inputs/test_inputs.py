"""Inputs for any signature: shapes, types, families, seeds, and real data cut into batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from normfold.errors import InputError
from normfold.inputs.data import load_data
from normfold.inputs.drawing import FAMILIES, assignments, draw, family_sample, resolve, signature
from normfold.verification import VerifyOptions
from normfold.verification.endtoend.selection import Unaccepted, select


def graph(inputs: str, ir_version: int = 8) -> ir.Model:
    header = f'<ir_version: {ir_version}, opset_import: ["" : 17]>'
    return ir.from_onnx_text(
        f"{header} g ({inputs}) => (float[K] y) {{ y = Constant<value_floats = [1.0]>() }}"
    )


def test_equal_dimension_names_get_equal_sizes() -> None:
    specs = signature(graph("float[N, 3, H, W] a, float[N, H] b"))
    for sizes in assignments(specs):
        shapes = resolve(specs, sizes)
        assert shapes["a"][0] == shapes["b"][0] and shapes["a"][2] == shapes["b"][1]


def test_given_shapes_and_dimensions_win() -> None:
    options = VerifyOptions(shapes={"a": (1, 3, 40, 50)}, dims={"L": 7})
    specs = signature(graph("float[N, 3, H, W] a, float[M, L] b"), options)
    assert specs[0].shape == (1, 3, 40, 50) and specs[1].shape == ("M", 7)


@pytest.mark.parametrize(
    "options",
    [
        VerifyOptions(shapes={"z": (1,)}),
        VerifyOptions(shapes={"a": (1, 3)}),
        VerifyOptions(shapes={"a": (1, 4, 2, 2)}),
    ],
)
def test_shape_that_does_not_fit_is_one_line(options: VerifyOptions) -> None:
    with pytest.raises(InputError, match=r"--shape .*'?[az]'?"):
        signature(graph("float[N, 3, H, W] a"), options)


def test_inputs_with_a_default_keep_it() -> None:
    header = '<ir_version: 8, opset_import: ["" : 17]>'
    text = f"{header} g (float[2] x, float[2] k = {{1, 2}}) => (float[2] y) {{ y = Add(x, k) }}"
    proto = onnx.parser.parse_model(text)
    assert [spec.name for spec in signature(ir.from_proto(proto))] == ["x"]


def test_every_type_is_drawn_in_its_own_range() -> None:
    specs = signature(
        graph("float16[4, 2] a, int64[4] b, bool[4] c, string[4] d, uint8[2, 8, 8] e, double[1] f")
    )
    shapes = resolve(specs, {})
    arrays = draw(specs, shapes, ("normal",), np.random.default_rng(0))
    assert [arrays[n].dtype.name for n in "abcef"] == ["float16", "int64", "bool", "uint8", "float64"]
    assert set(arrays["b"].tolist()) <= {0, 1} and set(arrays["d"].tolist()) <= {"a", "b"}
    assert arrays["e"].max() > 1
    assert {name: array.shape for name, array in arrays.items()} == shapes


def test_families_are_mixed_along_the_batch() -> None:
    specs = signature(graph("float[4, 3, 8, 8] x"))
    x = draw(
        specs, resolve(specs, {}), ("normal", "uniform", "large-mean", "impulse"), np.random.default_rng(1)
    )["x"]
    assert x[0].min() < 0 and x[1].min() >= 0 and x[1].max() < 1 and x[2].mean() > 9
    assert x[3, 0, 0, 0] == 1 and x[3, -1, -1, -1] == 1 and np.count_nonzero(x[3]) <= 3


@pytest.mark.parametrize("family", FAMILIES)
def test_families_accept_scalars_and_empty_shapes(family: str) -> None:
    rng = np.random.default_rng(0)
    assert family_sample(family, (), rng).shape == () and family_sample(family, (0, 3), rng).shape == (0, 3)


def accepts(sizes: dict[str, int]):  # type: ignore[no-untyped-def]
    def attempt(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for axis, size in sizes.items():
            if arrays["x"].shape[int(axis)] != size:
                raise Unaccepted("wrong size")
        return {"y": np.zeros(1)}

    return attempt


def test_sizes_are_tried_until_the_original_accepts_one() -> None:
    chosen = select(graph("float[N, 3, H, W] x"), VerifyOptions(), accepts({"2": 224, "3": 224}))
    assert chosen.batches[0]["x"].shape[2:] == (224, 224) and chosen.failure is None
    chosen = select(graph("float[N, 3, H, W] x"), VerifyOptions(), accepts({"2": 48, "3": 320}))
    assert chosen.batches[0]["x"].shape[2:] == (48, 320)


def test_no_accepted_size_is_a_failure_with_the_reason() -> None:
    chosen = select(graph("float[N, 3, H, W] x"), VerifyOptions(), accepts({"2": 31}))
    assert chosen.batches == [] and chosen.failure == "wrong size" and not chosen.nonfinite


def test_integers_that_only_run_as_zeros_are_found() -> None:
    def attempt(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if arrays["i"].any():
            raise Unaccepted("index out of range")
        return {"y": np.zeros(1)}

    chosen = select(graph("int64[16] i"), VerifyOptions(), attempt)
    assert chosen.failure is None and not chosen.batches[0]["i"].any()


def test_inputs_without_finite_outputs_are_not_chosen() -> None:
    def log(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with np.errstate(all="ignore"):
            return {"y": np.log(arrays["x"])}

    chosen = select(graph("float[1, 8] x"), VerifyOptions(), log)
    assert chosen.batches and all(np.isfinite(log(batch)["y"]).all() for batch in chosen.batches)
    nothing = select(graph("float[1, 8] x"), VerifyOptions(), lambda a: {"y": a["x"] * np.nan})
    assert nothing.nonfinite and nothing.batches == []


def test_the_same_seed_draws_the_same_inputs() -> None:
    model = graph("float[N, 5] x")
    first, second = (select(model, VerifyOptions(seed=3), accepts({})) for _ in range(2))
    np.testing.assert_array_equal(first.batches[0]["x"], second.batches[0]["x"])
    other = select(model, VerifyOptions(seed=4), accepts({}))
    assert (first.batches[0]["x"] != other.batches[0]["x"]).any()


def test_thorough_takes_every_family_and_two_sizes() -> None:
    chosen = select(graph("float[N, 5] x"), VerifyOptions(thorough=True), accepts({}))
    assert len(chosen.batches) == 2 * len(FAMILIES)
    assert len({batch["x"].shape for batch in chosen.batches}) == 2


def specs_of(inputs: str):  # type: ignore[no-untyped-def]
    return signature(graph(inputs))


def test_npz_is_cut_into_a_fixed_batch(tmp_path: Path) -> None:
    samples = np.arange(14, dtype=np.float32).reshape(7, 2)
    np.savez(tmp_path / "d.npz", x=samples, ignored=samples)
    runs = list(load_data(tmp_path / "d.npz", specs_of("float[3, 2] x")))
    assert [run["x"].tolist() for run in runs] == [samples[:3].tolist(), samples[3:6].tolist()]


def test_npz_with_an_open_batch_keeps_every_sample() -> None:
    samples = np.arange(20, dtype=np.float64).reshape(10, 2)
    runs = list(load_data({"x": samples}, specs_of("float[N, 2] x")))
    assert sum(len(run["x"]) for run in runs) == 10 and runs[0]["x"].dtype == np.float32


def test_folder_of_npy_files_by_input_name(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 2), np.float32))
    np.save(tmp_path / "b.npy", np.ones((4, 1), np.float32))
    (run,) = load_data(tmp_path, specs_of("float[N, 2] a, float[N, 1] b"))
    assert run["a"].shape == (4, 2) and run["b"].shape == (4, 1)


def test_onnx_test_data_sets(tmp_path: Path) -> None:
    for number in range(2):
        folder = tmp_path / f"test_data_set_{number}"
        folder.mkdir()
        tensor = onnx.numpy_helper.from_array(np.full((1, 2), number, np.float32))
        onnx.save_tensor(tensor, folder / "input_0.pb")
    runs = list(load_data(tmp_path, specs_of("float[1, 2] x")))
    assert [run["x"][0, 0] for run in runs] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"z": np.zeros((1, 2))}, "no array named 'x'"),
        ({"x": np.zeros((1, 3))}, r"shape \[1, 3\]"),
        ({"x": np.array([["a", "b"]])}, "type"),
        ({"x": np.zeros((2,))}, "shape"),
    ],
)
def test_data_that_does_not_fit_is_one_line(arrays: dict[str, np.ndarray], text: str) -> None:
    with pytest.raises(InputError, match=text):
        list(load_data(arrays, specs_of("float[1, 2] x")))


def test_unreadable_data_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "d.npz").write_bytes(b"not a zip")
    for path in (tmp_path / "d.npz", tmp_path / "missing.npz"):
        with pytest.raises(InputError):
            list(load_data(path, specs_of("float[1, 2] x")))


def test_numbers_that_do_not_fit_an_integer_type_are_one_line() -> None:
    with pytest.raises(InputError, match="do not fit uint8"):
        list(load_data({"x": np.array([[300, 1]])}, specs_of("uint8[1, 2] x")))


def test_missing_name_is_told_with_those_that_are_there() -> None:
    with pytest.raises(InputError, match="no array named 'x'; there is 'a', 'b'"):
        list(load_data({"b": np.zeros(1), "a": np.zeros(1)}, specs_of("float[1, 2] x")))


def test_data_that_the_original_rejects_is_one_line() -> None:
    model = graph("float[N, 5] x")
    with pytest.raises(InputError, match="does not run on the given data: wrong size"):
        select(model, VerifyOptions(data={"x": np.zeros((2, 5))}), accepts({"0": 3}))


def test_empty_data_is_one_line() -> None:
    with pytest.raises(InputError, match="holds no sample"):
        select(graph("float[N, 5] x"), VerifyOptions(data={"x": np.zeros((0, 5))}), accepts({}))


@pytest.mark.parametrize("name", ["sr", "sampling_rate", "Sample_Rate"])
def test_single_integer_that_is_called_a_sampling_rate_is_one(name: str) -> None:
    def only(rate: int):  # type: ignore[no-untyped-def]
        def attempt(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            if arrays[name].item() != rate:
                raise Unaccepted("rate")
            return {"y": np.zeros(1)}

        return attempt

    model = graph(f"float[1, 8] x, int64 {name}")
    for rate in (16000, 8000):
        chosen = select(model, VerifyOptions(), only(rate))
        assert chosen.failure is None and chosen.batches[0][name].dtype == np.int64
    assert select(model, VerifyOptions(), only(44100)).failure == "rate"


def test_sequence_beside_recurrent_states_is_found() -> None:
    """Like a voice activity detector: the states' second axis is the batch, the waveform needs a length."""

    def attempt(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if arrays["input"].shape[0] != arrays["state"].shape[1] or arrays["input"].shape[1] < 200:
            raise Unaccepted("sizes")
        return {"y": np.zeros(1)}

    for shapes in (
        "float[?, ?] input, float[2, ?, 128] state",
        "float[batch, L] input, float[2, batch, 128] state",
    ):
        model = graph(shapes.replace("?", "Q"))
        if "?" in shapes:
            for value in model.graph.inputs:
                value.shape = ir.Shape([2, None, 128] if value.name == "state" else [None, None])
        assert select(model, VerifyOptions(), attempt).failure is None
