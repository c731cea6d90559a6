"""Move a model to a later opset."""

from __future__ import annotations

from onnx import helper

from normfold.preparation.workspace import Workspace


def raise_opset(workspace: Workspace, version: int) -> None:
    """Nothing but the import changes: ``planning.opset`` has found that every operator means the same."""
    for imports in (workspace.model.opset_imports, workspace.opsets):
        imports.pop("ai.onnx", None)
        imports[""] = version
    least = helper.find_min_ir_version_for([helper.make_opsetid("", version)])
    workspace.model.ir_version = max(workspace.model.ir_version or least, least)


def import_domain(workspace: Workspace, domain: str, version: int) -> None:
    """Import a domain, unless the model does."""
    for imports in (workspace.model.opset_imports, workspace.opsets):
        imports.setdefault(domain, version)
