"""`holdfast kernels`: every kernel, one kernel, its messages, and its last words."""
