"""The same work on a Dask cluster."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from concurrent.futures import Executor
from importlib import import_module

from normfold.errors import InputError, MissingDependency
from normfold.loading.messages import one_line

_CONNECT_SECONDS = 10


@contextlib.contextmanager
def dask_executor(address: str) -> Iterator[Executor]:
    """Connects to the scheduler of a cluster, which decides what runs where.

    Args:
        address: of the scheduler, such as ``tcp://host:8786``.

    Raises:
        MissingDependency: Dask is not installed.
        InputError: NF900 if there is no scheduler.
    """
    try:
        connect = import_module("distributed").Client
    except ImportError as error:
        raise MissingDependency(f"--dask needs Dask: pip install 'normfold[dask]' ({error})") from error
    # What happens to a worker is told per model, in one line.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        client = connect(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except Exception as error:
        raise InputError(
            f"--dask {address}: no scheduler answers: {one_line(error)}", code="NF900"
        ) from error
    with client:
        # A result is written, so the same call must never be taken for one that was made before.
        executor: Executor = client.get_executor(pure=False)
        try:
            yield executor
        finally:
            executor.shutdown(wait=False)
