"""Models: frozen values without any input or output."""
