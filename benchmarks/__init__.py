"""Measurements of quality and memory, the paper's tables, and the pages generated from them."""
