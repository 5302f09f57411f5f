"""The scan of ComfyUI's registry, which stops serving a version with findings."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

# Modules that start programs, execute data, or open connections.
FORBIDDEN = {
    "aiohttp",
    "dill",
    "ftplib",
    "http",
    "httpx",
    "huggingface_hub",
    "joblib",
    "marshal",
    "multiprocessing",
    "pickle",
    "pip",
    "pty",
    "requests",
    "runpy",
    "shelve",
    "smtplib",
    "socket",
    "ssl",
    "subprocess",
    "telnetlib",
    "urllib",
    "urllib3",
    "websocket",
    "websockets",
    "xmlrpc",
}
# Parts that serve the page, parse addresses or name status codes; they open no connections.
HARMLESS = {"aiohttp.web", "http.HTTPStatus", "urllib.parse"}
NETWORK = {"aiohttp", "http", "httpx", "huggingface_hub", "requests", "ssl", "urllib", "urllib3"}
CALLS = {"__import__", "compile", "eval", "exec"}
ATTRIBUTES = re.compile(
    r"(^|\.)(os\.(system|popen|startfile|fork|exec\w+|spawn\w+|posix_spawn\w*)"
    r"|torch\.(load|hub\.\w+)|importlib\.import_module"
    r"|create_subprocess_\w+|open_connection|download_url_to_file)$"
)
WORDS = ("subprocess", "torch.load", "os.system")  # a scanner may read text, not syntax
URL = re.compile(r"""["'`]\s*((?:https?|wss?):)?//[\w.${-]""")
NAMESPACE = "http://www.w3.org/"  # identifies SVG elements; nothing is fetched from it
REMOTE_IMPORT = re.compile(r"@import|url\(\s*['\"]?(https?:)?//")


def imports(tree: ast.AST) -> Iterator[str]:
    """The dotted names of imports from other packages, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def findings_in_python(source: str, network: bool = False) -> list[str]:
    """Findings of the registry's scan.

    Args:
        network: the file may open connections, which the user requests.
    """
    tree = ast.parse(source)
    allowed = NETWORK if network else set()
    findings = [
        f"import of {name}"
        for name in imports(tree)
        if name.partition(".")[0] in FORBIDDEN - allowed
        and not any(f"{name}.".startswith(f"{harmless}.") for harmless in HARMLESS)
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            findings += [f"call of {node.func.id}"] if node.func.id in CALLS else []
        elif isinstance(node, ast.Attribute) and ATTRIBUTES.search(ast.unparse(node)):
            findings.append(f"use of {ast.unparse(node)}")
    return findings + [f"the word {word}" for word in WORDS if word in source]


def findings_in_page(source: str) -> list[str]:
    """Addresses of other hosts in a script or a style sheet."""
    lines = [line for line in source.splitlines() if NAMESPACE not in line]
    return [line.strip() for line in lines if URL.search(line) or REMOTE_IMPORT.search(line)]
