"""Where a keeper stores its log: memory first, then files."""
