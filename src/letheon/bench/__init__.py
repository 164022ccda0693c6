"""`letheon bench`: every method on the same victim, data and budget, and one table of what came of it."""
