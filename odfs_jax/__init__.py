"""Trained-per-pair face swapping in JAX."""

__version__ = "0.1.0"
