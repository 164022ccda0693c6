"""The demo: one story, told with real runs."""
