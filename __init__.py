"""Entry point for ComfyUI: the nodes and the folder of web files."""

WEB_DIRECTORY = "./web"

# ComfyUI loads this folder as a package. Test and lint tools may import the file on its own, and
# then a relative import would fail.
if __package__:
    from .nodes import comfy_entrypoint

    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
