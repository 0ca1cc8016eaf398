"""What administrators ask of a proxy: the cluster at a glance, as a document and as events."""
