"""Model families with a common protocol; ``load.load_model`` loads them."""
