"""Names of execution providers and their options."""

from __future__ import annotations

import pytest

from normfold.errors import InputError
from normfold.runtime.execution_providers import options_by_provider, provider_name, short_name
from normfold.verification import VerifyOptions


def test_short_and_full_names() -> None:
    assert provider_name("CUDA") == "CUDAExecutionProvider"
    assert provider_name("XExecutionProvider") == "XExecutionProvider"
    assert short_name("CUDAExecutionProvider") == "cuda"
    with pytest.raises(InputError, match="no execution provider is named 'gpu'"):
        VerifyOptions(providers=("cpu", "gpu"))


def test_options_under_either_name_come_together() -> None:
    given = {"cuda": {"prefer_nhwc": "1"}, "CUDAExecutionProvider": {"device_id": "0"}}
    assert options_by_provider(given, ["cpu", "Cuda"]) == {
        "CUDAExecutionProvider": {"prefer_nhwc": "1", "device_id": "0"}
    }


def test_options_of_a_provider_that_is_not_to_run() -> None:
    with pytest.raises(InputError, match="options of cuda, which is not to run: ask for it with --ep"):
        VerifyOptions(providers=("cpu",), provider_options={"cuda": {"prefer_nhwc": "1"}})


def test_tf32_is_not_for_the_caller_to_choose() -> None:
    with pytest.raises(InputError, match="use_tf32 is off where the verdict is made"):
        VerifyOptions(providers=("cuda",), provider_options={"cuda": {"use_tf32": "1"}})
