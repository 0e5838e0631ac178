"""Settings in, records out."""
