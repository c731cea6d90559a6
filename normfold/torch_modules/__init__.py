"""Live torch modules beside the graphs that are exported from them. The only package that imports torch."""

from normfold.errors import MissingDependency

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise MissingDependency(
        f"torch modules need torch: pip install 'normfold[torch]' ({error})", code="NF901"
    ) from error
