"""Import paths of existing programs for jobs and workflows."""
