"""One client's connection: its websocket, and what it says and hears."""
