"""A launcher's listener, and its calls to the proxies."""
