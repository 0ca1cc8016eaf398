"""`holdfast list`: proxies, launchers, and how the kernels are."""
