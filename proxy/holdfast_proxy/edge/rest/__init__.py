"""The REST calls of the Jupyter kernel gateway API."""
