"""A MODEL, CLIP and VAE of ComfyUI as one of our models: any architecture that ComfyUI samples."""
