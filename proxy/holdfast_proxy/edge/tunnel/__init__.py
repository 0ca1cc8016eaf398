"""The blind byte tunnel between a client and a keeper."""
