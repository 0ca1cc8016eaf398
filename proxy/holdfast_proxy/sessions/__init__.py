"""Jupyter's sessions: which document has which kernel."""
