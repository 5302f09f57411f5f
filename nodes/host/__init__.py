"""What the nodes ask of ComfyUI: folders, memory, progress, images."""
