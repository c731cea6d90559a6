"""The registry of shipped models: what was pinned is what comes, else the reason is clear."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models import real


@pytest.mark.real
@pytest.mark.parametrize("name", sorted(real.available()))
def test_holds_the_normalisations_that_were_counted(name: str) -> None:
    found = real.contents(real.path_or_skip(name))
    assert found.ops["BatchNormalization"] == real.available()[name].batch_norms


@pytest.mark.real
@pytest.mark.parametrize("name", sorted(real.available()))
def test_feeds_fit_the_model(name: str) -> None:
    file = real.path_or_skip(name)
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    outputs = session.run(None, real.feeds(name))
    assert all(np.isfinite(value).all() for value in outputs)


def test_light_models_are_the_wheels_own() -> None:
    counts = {name: real.contents(file).ops["BatchNormalization"] for name, file in real.light().items()}
    assert {name: count for name, count in counts.items() if count} == {
        "densenet121": 121,
        "inception_v2": 69,
        "resnet50": 53,
        "shufflenet": 49,
    }


def test_a_registry_out_of_reach_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NORMFOLD_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(real.Unavailable, match=r"cannot fetch basic-pitch==.*No matching distribution"):
        real.path("basic-pitch")
    with pytest.raises(pytest.skip.Exception, match="cannot fetch basic-pitch"):
        real.path_or_skip("basic-pitch")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.real
def test_a_damaged_cache_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NORMFOLD_CACHE", str(tmp_path))
    good = real.path_or_skip("basic-pitch").read_bytes()
    damaged = real.path("basic-pitch")
    damaged.write_bytes(good[:-1])
    assert real.path("basic-pitch").read_bytes() == good
