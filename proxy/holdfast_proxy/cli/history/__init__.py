"""`holdfast history`: the timeline of the cluster."""
