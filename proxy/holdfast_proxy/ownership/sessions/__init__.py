"""Sessions in etcd, and how they go with their kernels."""
