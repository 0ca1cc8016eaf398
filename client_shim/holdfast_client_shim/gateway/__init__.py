"""Gateways as seen over the network: addresses, dials, websockets, REST. No Jupyter, no streams."""
