"""``python -m normfold``."""

from importlib import import_module

if __name__ == "__main__":
    import_module("normfold.cli").main()
