"""Write stores: stage, build, seal, publish; check and convert stores that exist.

Imports the format, the backends and ``reading``; ``copying``, ``importing`` and ``commands`` import it.
"""
