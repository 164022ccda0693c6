"""Attacks that try to bring back what a model has forgotten: one file each.

`letheon.stress.make` makes them on models, `letheon.stress.stage` on those of a run.
"""
