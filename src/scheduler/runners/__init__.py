"""Adapters to the backends that run jobs."""
