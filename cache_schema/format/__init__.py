"""The store format: SPEC.md in prose, and its rules as code; opens no store.

Imports ``closerlook_common`` alone; the rest of ``cache_schema`` imports it.
"""
