"""What the web page sees of a run, and what it may ask of the server."""
