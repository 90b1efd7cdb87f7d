"""What the columns of logits stand for: class spaces, the names that prompts call classes by, prompt sets.

Imports nothing else of ``extract``; whatever knows of classes imports it.
"""
