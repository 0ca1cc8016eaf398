"""`holdfast drain`: ask a proxy to end in order, and see it through."""
