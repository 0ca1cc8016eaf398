"""Calls from this proxy to keepers, launchers and other proxies."""
