"""A kernel's life as its owner leads it: start, restart, end, repair, and how clients see it."""
