"""The only code that mutates a graph.

A value keeps its name exactly if it keeps its meaning (docs/decisions/0002).
"""
