"""The pages of the benchmarks, and the replacement of their generated parts."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
README, APPENDIX = HERE / "README.md", HERE / "APPENDIX.md"
DOCS = HERE.parent / "docs"
FRONT = DOCS / "results.md"


def put(file: Path, begin: str, end: str, text: str) -> None:
    """Replace the text between the two marks."""
    before, _, rest = file.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    file.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def put_block(file: Path, name: str, text: str) -> None:
    """Replace the page's block of that name."""
    put(file, f"<!-- {name} -->", f"<!-- end of {name} -->", text)
