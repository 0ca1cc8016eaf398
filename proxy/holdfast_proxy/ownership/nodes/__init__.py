"""Where kernels can run: launchers, what they say, what they offer, who gets a start."""
