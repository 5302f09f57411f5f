"""The inputs and sockets of the nodes."""
