"""The models that can be named: lists of the study, and cards derived from names alone."""
