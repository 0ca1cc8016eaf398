"""JupyterLab in a browser: what the tests of `tests/lab` start, look at and break."""
