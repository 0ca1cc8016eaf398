"""What a launcher counts, of itself and of its keepers, and how Prometheus gets it."""
