"""Measurements of quality, memory and the paper's tables, and the pages generated from them."""
