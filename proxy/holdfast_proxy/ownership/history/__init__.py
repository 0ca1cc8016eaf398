"""The timeline read back (``chronicle``) and who writes what on it (``narrator``)."""
