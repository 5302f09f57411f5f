"""The message about an error that no other place has caught."""

from __future__ import annotations

import argparse
import traceback
from pathlib import Path

ISSUES = "https://github.com/comfyui-unlearn/comfyui-unlearn/issues"


def describe_unexpected(error: Exception, options: argparse.Namespace) -> str:
    """One line: what failed and where, what was being read, and the request for a report."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    reason = str(error).splitlines()[0] if str(error) else "no message"
    sources = [f"settings {options.settings!r}"]
    if "out" in options:
        sources.append(f"results {str(options.out)!r}")
    return (
        f"error: {type(error).__name__} ({reason:.200}) in {Path(place.filename).name}, line "
        f"{place.lineno}, during `{options.stage}` with {' and '.join(sources)}. This is a mistake "
        f"in the program or a damaged file that it does not recognise; please report it, with this "
        f"line and the settings file: {ISSUES}"
    )
