"""The agent: what a launcher knows of its kernels and what it does when asked."""
