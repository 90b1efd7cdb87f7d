"""The models that can be named: how a model list is read, the study's lists, cards derived from names alone.

Imports nothing else of ``extract``; models are built from what is described here.
"""
