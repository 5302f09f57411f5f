"""The Chinese texts of the nodes, their help pages and the panels match the schema."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from .pack import NODES, ROOT, pack_module, schema_inputs

LANGUAGE = "zh"
CHINESE = re.compile(r"[\u4e00-\u9fff]")
SYNTAX = re.compile(r"[{}@|]")  # special characters of ComfyUI's message format
DEFAULT = re.compile(r"默认 ([\d.]*\d)")
every_node = pytest.mark.parametrize("node_id", NODES)


def locale(file: str) -> dict[str, Any]:
    return json.loads((ROOT / "locales" / LANGUAGE / file).read_text(encoding="utf-8"))


def texts_of(part: object) -> list[str]:
    if isinstance(part, dict):
        return [text for inner in part.values() for text in texts_of(inner)]
    assert isinstance(part, str)
    return [part]


def page_words() -> dict[str, dict[str, str]]:
    """The panels' texts by language, read from the source."""
    source = (ROOT / "web" / "js" / "words.js").read_text(encoding="utf-8")
    blocks = re.findall(r"^  (\w+): \{\n(.*?)^  \},", source, re.M | re.S)
    entry = re.compile(r'^    "([^"]+)": "([^"]*)",$', re.M)
    words = {language: entry.findall(block) for language, block in blocks}
    for language, block in blocks:
        assert len(words[language]) == len(block.splitlines()), "an entry has another format"
        assert len(dict(words[language])) == len(words[language]), "an entry is duplicated"
    return {language: dict(entries) for language, entries in words.items()}


def test_all_nodes_are_translated_and_no_others() -> None:
    assert set(locale("nodeDefs.json")) == set(NODES)
    names = [node["display_name"] for node in locale("nodeDefs.json").values()]
    assert len(set(names)) == len(names)


@every_node
def test_a_node_has_all_texts_of_its_schema(node_id: str) -> None:
    translated = locale("nodeDefs.json")[node_id]
    assert set(translated) == {"display_name", "description", "inputs", "outputs"}
    assert set(translated["inputs"]) == set(schema_inputs(node_id))
    outputs = NODES[node_id].define_schema().outputs
    assert list(translated["outputs"]) == [str(i) for i in range(len(outputs))]
    for part in (*translated["inputs"].values(), *translated["outputs"].values()):
        assert set(part) == {"name", "tooltip"}


@every_node
def test_each_text_of_a_node_is_valid_and_chinese(node_id: str) -> None:
    translated = locale("nodeDefs.json")[node_id]
    for name, part in translated["inputs"].items():
        assert part["name"].endswith(f" ({name})"), "help pages and screenshots use that name"
    for text in texts_of(translated):
        assert CHINESE.search(text), text
        assert not SYNTAX.search(text), text


@every_node
def test_a_default_in_a_tooltip_is_correct(node_id: str) -> None:
    inputs = locale("nodeDefs.json")[node_id]["inputs"]
    for name, inp in schema_inputs(node_id).items():
        default = getattr(inp, "default", None)
        if isinstance(default, int | float) and not isinstance(default, bool):
            match = DEFAULT.search(inputs[name]["tooltip"])
            assert match, name
            assert float(match[1]) == default, name


def test_the_category_is_translated() -> None:
    categories = {node.define_schema().category for node in NODES.values()}
    translated = locale("main.json")["nodeCategories"]
    assert set(translated) == categories
    assert all(map(CHINESE.search, texts_of(translated)))


@every_node
def test_it_has_a_help_page_like_the_english_one(node_id: str) -> None:
    docs = ROOT / "web" / "docs"
    english = (docs / f"{node_id}.md").read_text(encoding="utf-8")
    page = (docs / node_id / f"{LANGUAGE}.md").read_text(encoding="utf-8")
    title = locale("nodeDefs.json")[node_id]["display_name"]
    english_title = english.splitlines()[0].removeprefix("# Unlearn: ")
    assert page.startswith(f"# {title} ({english_title})\n")
    for name in schema_inputs(node_id):
        assert f"**{name}**" in page, name
    for heading in ("# ", "## "):
        assert page.count(f"\n{heading}") == english.count(f"\n{heading}")
    for line in filter(None, page.splitlines()):
        only_values = line.startswith("|") and line in english  # a table row of input values
        assert only_values or CHINESE.search(line), line


def test_the_panels_have_the_same_words_in_both_languages() -> None:
    words = page_words()
    assert set(words) == {"en", LANGUAGE}
    assert list(words["en"]) == list(words[LANGUAGE])
    placeholders, plurals = re.compile(r"\{(\w+)\}"), re.compile(r"\{(\w+)\|")
    for name, english in words["en"].items():
        chinese = words[LANGUAGE][name]
        assert sorted(placeholders.findall(chinese)) == sorted(placeholders.findall(english)), name
        assert set(plurals.findall(english)) <= set(placeholders.findall(english)), name
        assert CHINESE.search(chinese), name


def test_the_panel_uses_the_report_s_names_of_figures() -> None:
    core = pack_module("unlearn_core.reporting.figures")
    labels = {
        **core.LABELS,
        core.CHANGE: core.CHANGE_LABEL,
        core.DISTANCE: core.DISTANCE_LABEL,
    }
    words = page_words()["en"]
    texts = {name: text for name, text in words.items() if name.startswith("figure.")}
    assert texts == {f"figure.{key}": label for key, label in labels.items()}
