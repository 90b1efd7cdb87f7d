"""Heads for encoders that have none: a linear probe and nearest neighbours, fitted on stored features.

``banks`` reads labelled rows of a training set, ``logistic`` and ``neighbours`` are fitted on them, ``l2_path`` chooses
the strength of the penalty, ``derived`` writes what a probe gives as stores, ``whole_cache`` does it all for a cache.
"""
