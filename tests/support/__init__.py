"""Fakes and harnesses that several parts of the tests share."""
