"""The edge proxy: ownership in etcd, placement, and a blind tunnel to keepers."""
