"""Judges a history: a pure function of its events, apart from whatever wrote them."""
