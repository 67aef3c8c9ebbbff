"""Contestants without a framework. No restore, no rebalance handling, no dead letters, no metrics: the bare work."""
