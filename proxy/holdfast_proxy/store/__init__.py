"""The coordination store: one contract, etcd and an in-memory twin behind it."""
