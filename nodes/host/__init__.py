"""Access to ComfyUI's folders, memory, progress and images."""
