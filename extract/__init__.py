"""Stage 1: models and images in, sealed stores out; importing this never imports torch."""
