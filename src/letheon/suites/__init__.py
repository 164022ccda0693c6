"""`letheon evaluate --suite`: what the field measures, of any model folder, without a training run."""
