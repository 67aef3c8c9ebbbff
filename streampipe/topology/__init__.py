"""The graph that a processor module describes: nodes, names, sub-topologies, drawings."""
