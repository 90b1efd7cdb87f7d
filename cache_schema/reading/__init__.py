"""Find stores in a cache, a folder or an address, and read them.

Imports the format and the backends; ``writing``, ``copying`` and ``importing`` import it.
"""
