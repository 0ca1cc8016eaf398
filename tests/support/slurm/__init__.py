"""A real Slurm cluster on loopback, for tests."""
