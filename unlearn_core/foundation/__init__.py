"""Reading, checking and writing anything: checks, files that appear whole, safetensors, pixels."""
