"""How results are shown: sentences, charts, grids and the HTML report."""
