"""What meets jupyter_server: its hooks, its managers, its configuration, and the state file."""
