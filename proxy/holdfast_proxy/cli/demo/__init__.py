"""`holdfast demo`: a real notebook runs while its proxies are killed, and everything is counted."""
