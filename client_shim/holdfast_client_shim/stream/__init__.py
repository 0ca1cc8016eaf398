"""One session of one kernel, between a notebook and some gateway: it knows no configuration."""
