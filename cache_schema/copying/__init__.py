"""Copy sealed stores between a local cache and an address: whole, verified, resumable.

Imports ``reading`` and ``writing``; only ``commands`` imports it.
"""
