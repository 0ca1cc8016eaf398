"""The resume state machine of ``v1.stream.holdfast``: ``client`` and ``keeper`` are its ends."""
