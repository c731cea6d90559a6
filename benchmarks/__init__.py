"""Speed and scale, measured. ``python -m benchmarks NAME`` runs one; docs/benchmarks.md has the results."""
