"""The cluster as administrators see it: asked for, composed and never decided here."""
