"""Aggregates by key and window, in event time."""
