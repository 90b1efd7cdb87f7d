"""The miniature study: images, factors, captions, and models trained on them.

``python -m examples.miniature`` builds it, from the repository's root; it is no part of the package.
"""
