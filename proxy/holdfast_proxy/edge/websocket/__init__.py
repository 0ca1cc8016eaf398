"""A client's websocket before it is a tunnel, and while no keeper can speak."""
