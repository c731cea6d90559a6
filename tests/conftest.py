"""The fixtures that every test can ask for: ``check`` and ``interpreter``."""

pytest_plugins = ["tests.interpreter", "tests.checker"]
