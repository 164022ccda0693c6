"""A person in the loop: a local page on which the verdicts of a screening are confirmed or changed."""
