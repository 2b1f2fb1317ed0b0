"""Import paths of existing programs for trials."""
