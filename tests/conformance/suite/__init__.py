"""A black-box suite of the Jupyter REST and websocket API, for any server that speaks it."""
