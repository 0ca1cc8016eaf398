"""The launcher agent, its engines, and the keeper that stands beside each kernel."""
