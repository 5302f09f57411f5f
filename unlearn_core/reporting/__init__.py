"""Presentation of results: sentences, charts, grids and the HTML report."""
