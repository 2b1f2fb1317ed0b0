"""Small conveniences for programs."""
