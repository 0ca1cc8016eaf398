"""Keepers on other machines: how they claim their start, and dial back to their launcher."""
