"""Letheon: make a trained language model unlearn, keep the rest, and show the evidence."""

__version__ = "0.1.0"
