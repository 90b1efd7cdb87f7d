"""Caches at an address: what reads them, and what copies stores there and from there."""
