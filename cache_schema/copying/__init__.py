"""Copies of sealed stores, from a cache here to an address and back: whole, verified, resumable.

Imports places, the staging of stores and their checks; only ``commands`` imports it.
"""
