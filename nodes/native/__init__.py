"""Models of ComfyUI as ours, and the demo models in ComfyUI's own classes."""
