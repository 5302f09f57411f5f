"""Inputs and sockets of the nodes."""
