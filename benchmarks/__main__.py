"""``python -m benchmarks NAME [OPTIONS]``: run one benchmark."""

from __future__ import annotations

import importlib
import sys

NAMES = (
    "calibrated_zoo",
    "channel_norms",
    "consistency_memory",
    "conversion",
    "cuda",
    "groupnorm",
    "left",
    "peers",
    "scale",
    "scaling",
)


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        print(f"usage: python -m benchmarks {{{','.join(NAMES)}}} [--help]", file=sys.stderr)
        return 2
    module = importlib.import_module(f"benchmarks.{sys.argv[1]}")
    return int(module.main(sys.argv[2:]))


if __name__ == "__main__":
    sys.exit(main())
