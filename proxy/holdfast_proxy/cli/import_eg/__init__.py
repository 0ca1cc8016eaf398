"""`holdfast import-eg`: an Enterprise Gateway's configuration in Holdfast's words."""
