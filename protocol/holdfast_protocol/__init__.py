"""What proxy, launcher and client shim share: frames, resume, the log, ownership, records."""
