"""Attacks that try to bring back what a model has forgotten: one file each. `letheon.stress.stage` runs them."""
