"""The inputs of the nodes and their link types."""
