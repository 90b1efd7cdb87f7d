"""The miniature study: images, factors, captions, and models trained on them.

Imports nothing else of ``extract``; only ``commands`` and tests import it.
"""
