"""A jupyter_server extension whose gateway websockets resume by themselves."""
