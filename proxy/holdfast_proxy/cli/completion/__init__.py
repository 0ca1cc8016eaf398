"""`holdfast completion`: what a shell needs to complete commands, options, proxies and kernels."""
