"""The chaos run: a whole Holdfast under random faults, a history of it, and who judges that."""
