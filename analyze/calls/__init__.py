"""Behind ``analyze.api``: what its functions take alike, and trends.

Imports all of ``analyze`` but commands; only ``api`` imports it.
"""
