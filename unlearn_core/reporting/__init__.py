"""Presentation of results: sentences, charts, picture grids and the HTML report."""
