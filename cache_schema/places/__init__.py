"""Where a cache is: a folder, or an address whose stores are read by parts and kept on this machine.

Imports backends and what they stand on; whatever opens a store imports it.
"""
