"""Model families behind one protocol; ``load.load_model`` opens a model."""
