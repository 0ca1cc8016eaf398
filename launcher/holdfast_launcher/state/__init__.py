"""What a launcher keeps on disk, and what it reads of its keepers' files."""
