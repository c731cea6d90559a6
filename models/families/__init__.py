"""One small torch network per family; :mod:`models.zoo` lists them. Each module says which graph it is for.

Networks are written the way their originals are; what matters is the graph that an exporter leaves of them.
Blocks whose branches a re-parameterisation script would merge have a method ``merge`` that does so.
"""
