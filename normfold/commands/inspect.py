"""``normfold.inspect``: what a fold would do to a model."""

from __future__ import annotations

from collections.abc import Iterable

from normfold.commands.arguments import chosen_form, chosen_target
from normfold.commands.fold_run import FoldRun
from normfold.loading import ModelLike
from normfold.options import FoldOptions
from normfold.progress import Progress
from normfold.reporting.report import Report


def inspect(
    model: ModelLike,
    *,
    skip: Iterable[str] = (),
    keep: Iterable[str] = (),
    freeze_initializers: bool = False,
    fold_norm_affine: bool = False,
    target: str | None = None,
    groupnorm: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Lists every normalisation and constant affine of a model, and what a fold would do to it.

    Args:
        model: path (``-`` for standard input), protobuf or onnx_ir model. Never changed.
        skip: as for ``fold``.
        keep: as for ``fold``.
        freeze_initializers: as for ``fold``.
        fold_norm_affine: as for ``fold``.
        target: as for ``fold``.
        groupnorm: as for ``fold``.
        progress: is called with the name of each phase when it begins.

    Returns:
        The report; its verdict is ``None``.

    Raises:
        InputError: the model or an option cannot be used.
    """
    with FoldRun("inspect", progress) as run:
        options = FoldOptions(
            frozenset(skip),
            frozenset(keep),
            freeze_initializers,
            fold_norm_affine,
            target=chosen_target(target, ()),
            groupnorm=chosen_form(groupnorm),
        )
        run.fold(run.load(model), options)
    return run.report
