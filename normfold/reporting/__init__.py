"""One data structure (``report``), rendered to each format by a module of its own."""
