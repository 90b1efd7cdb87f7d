"""Stage 1: models and images in, sealed stores out; importing this never imports torch.

A run is put together in one direction; each imports only what stands before it (a contract in ``pyproject.toml``):

    classes, preprocess                 what columns of logits stand for, what is done to an image
    datasets, zoo                       images in order with their labels; models by name
    models                              names made models: weights, heads, precision
    studies, planning                   what is asked for, what of it is left to do, what it costs
    passes                              images once through many models, into stores
    engines                             who runs the pieces of work
    commands                            the way in

``miniature`` is the built-in world, for demonstration and tests; it imports nothing else of ``extract``.
"""
