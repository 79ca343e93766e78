"""Sinks outside of the project: one file a kind. Whoever runs here holds one secret, and reaches one host."""
