"""Processors over New York City's flights of January 2013: real data with real holes, see docs/demo.md."""
