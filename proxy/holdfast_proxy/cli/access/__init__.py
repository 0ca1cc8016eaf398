"""How the command finds a cluster and talks to its proxies."""
