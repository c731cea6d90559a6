"""What can be asked of normfold, one module per command: ``normfold.fold`` is ``commands.fold.fold``."""
