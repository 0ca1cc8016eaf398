"""What a proxy counts and how Prometheus gets it (docs/reference/metrics.md)."""
