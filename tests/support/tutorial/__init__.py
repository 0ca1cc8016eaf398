"""Running the tutorial's pages: their code blocks, machines, and an environment to run in."""
