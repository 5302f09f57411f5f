"""Services of ComfyUI that the nodes use: folders, memory, progress, images."""
