"""One file for each way to extend, and ``miniature``, a whole study that is built from nothing."""
