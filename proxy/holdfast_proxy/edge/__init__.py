"""The HTTP face of a proxy: REST, authentication, tunnels to keepers, drain."""
