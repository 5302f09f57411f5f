"""Models that ComfyUI loaded: training and editing them in place."""
