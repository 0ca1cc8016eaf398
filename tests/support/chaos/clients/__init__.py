"""Who works with the cluster while it suffers: notebooks behind the shim, plain websockets, and
one that asks for the list of kernels all the time."""
