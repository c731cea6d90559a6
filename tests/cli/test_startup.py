"""What a process of the command line imports, and what it leaves for later."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MODEL = Path(__file__).parents[2] / "models" / "trained" / "lenet_digits_bn.onnx"

FOLD = """
import sys
from normfold.cli import group
code = group.main(args=["fold", "--no-verify", "-q", sys.argv[1], "-o", sys.argv[2]], standalone_mode=False)
assert code == 0, code
for name in sys.argv[3:]:
    print(name, name in sys.modules)
"""


def run(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["sympy", "onnxruntime", "torch", "onnx.reference", "rich", "PIL"])
def test_a_quiet_fold_without_proof_imports_nothing_that_it_does_not_need(tmp_path: Path, name: str) -> None:
    assert run(FOLD, str(MODEL), str(tmp_path / "out.onnx"), name, "onnx_ir").split() == [
        *(name, "False"),
        *("onnx_ir", "True"),
    ]


def test_arithmetic_on_symbolic_dimensions_brings_sympy_in() -> None:
    code = """
import sys
from normfold.cli.startup import import_onnx_ir
import_onnx_ir()
assert "sympy" not in sys.modules
import onnx_ir
print((onnx_ir.SymbolicDim("max(n, 2)") + 1).evaluate({"n": 5}), "sympy" in sys.modules)
import sympy
print(onnx_ir.SymbolicDim(sympy.Symbol("k") * 2).value)
"""
    assert run(code).split() == ["6", "True", "2*k"]


@pytest.mark.parametrize("first", ["sympy", "onnx_ir"])
def test_what_is_imported_already_stays_as_it_is(first: str) -> None:
    code = f"""
import sys
import {first}
before = sys.modules["sympy"]
from normfold.cli.startup import import_onnx_ir
import_onnx_ir()
import onnx_ir._core
print(sys.modules["sympy"] is before and onnx_ir._core.sympy is before)
"""
    assert run(code).split() == ["True"]


def test_where_the_stand_in_does_not_do_the_import_is_the_usual_one() -> None:
    code = """
import sys
import normfold.cli.startup as startup
def broken(name):
    raise TypeError("metaclass conflict")
startup._later = broken
startup.import_onnx_ir()
assert not [name for name in sys.modules if name.startswith("onnx_ir")]
import onnx_ir
print(onnx_ir._core.sympy is sys.modules["sympy"], (onnx_ir.SymbolicDim("n") + 1).value)
"""
    assert run(code).strip() == "True n + 1"
