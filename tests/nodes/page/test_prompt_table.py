"""The table of prompts: its preview before a run, and the use of edits made in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ..pack import call, defaults, node_result, run_node, shown_by

# isort: split
import folder_paths

NODE = "UnlearnDiversifyPrompts"
CONCEPT = defaults("UnlearnForgetConcept")
FEW = {"train_count": 3, "test_count": 2}


def concept(**widgets: Any) -> Any:
    return node_result("UnlearnForgetConcept", **widgets)[0]


def table(**widgets: Any) -> tuple[int, Any]:
    prompts = {**defaults(NODE), **FEW, **widgets}
    return call("POST", "/unlearn/prompts", {"concept": CONCEPT, "prompts": prompts})


def test_the_table_shows_what_the_node_will_output() -> None:
    status, rows = table()
    assert status == 200
    output = run_node(NODE, concept=concept(), **FEW)
    assert shown_by(output)["unlearn_prompts"] == [rows]
    assert output.result is not None
    pairs = output.result[0]
    assert [row["forget"] for row in rows["train"]] == [pair.forget for pair in pairs.train]
    assert [row["retain"] for row in rows["test"]] == [pair.retain for pair in pairs.test]


@pytest.mark.parametrize("widgets", [{"neighbours": 1}, {"language_model": "tiny"}])
def test_words_that_need_a_model_are_not_silently_omitted(widgets: dict[str, Any]) -> None:
    status, answer = table(**widgets)
    assert status == 400
    assert f"{next(iter(widgets))}: finding the words needs a model" in answer["error"]
    assert table(edited_prompts=json.dumps(edited()), **widgets)[0] == 200


def edited() -> dict[str, Any]:
    _, content = table()
    words = {"forget": "an ink whale", "retain": "a plain whale"}
    content["train"][0] = {**words, "replacement": "", "values": {}}  # the words contain none
    del content["test"][1]
    return content


def test_edits_replace_the_words() -> None:
    text = json.dumps(edited())
    assert table(edited_prompts=text) == (200, edited())
    pairs = node_result(NODE, concept=concept(), edited_prompts=text, templates="no")[0]
    assert (pairs.train[0].forget, pairs.train[0].retain) == ("an ink whale", "a plain whale")
    assert (len(pairs.train), len(pairs.test)) == (3, 1)


def test_edits_for_another_concept_are_refused() -> None:
    text = json.dumps(edited())
    with pytest.raises(ValueError, match="the edited table is for another concept"):
        run_node(NODE, concept=concept(concept="chalk"), edited_prompts=text)


@pytest.mark.parametrize(
    ("side", "prompt", "words"),
    [
        ("forget", "a whale", "does not mention 'ink'"),
        ("retain", "an ink whale", "must not mention 'ink'"),
    ],
)
def test_an_invalid_edit_is_refused(side: str, prompt: str, words: str) -> None:
    content = edited()
    content["train"][0][side] = prompt
    status, answer = table(edited_prompts=json.dumps(content))
    assert status == 400
    assert words in answer["error"]
    with pytest.raises(ValueError, match=words):
        run_node(NODE, concept=concept(), edited_prompts=json.dumps(content))


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        {"concept": {}, "prompts": {}},
        {"concept": CONCEPT, "prompts": {**defaults(NODE), "train_count": "many"}},
        {"concept": {**CONCEPT, "unknown": 1}, "prompts": defaults(NODE)},
        {"concept": {**CONCEPT, "concept": None}, "prompts": defaults(NODE)},
        {"concept": CONCEPT, "prompts": {**defaults(NODE), "preset": "planet"}},
        {"concept": CONCEPT, "prompts": {**defaults(NODE), "edited_prompts": "no JSON"}},
    ],
)
def test_malformed_requests_are_refused(content: object) -> None:
    status, answer = call("POST", "/unlearn/prompts", content)
    assert status == 400
    assert answer["error"]


def test_the_table_shows_a_prompt_file(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path))
    (tmp_path / "mine.json").write_text(json.dumps(edited()), encoding="utf-8")
    assert table(prompts_file="mine.json") == (200, edited())
    status, answer = table(prompts_file="../mine.json")
    assert status == 400
    assert "is not in ComfyUI's input folder" in answer["error"]


def test_the_table_shows_only_its_node_s_concept() -> None:
    """The prompts of another concept are edited on its own node."""
    other = node_result(NODE, concept=concept(concept="chalk"), **FEW)[0]
    output = run_node(NODE, concept=concept(), also=other, **FEW)
    assert shown_by(output)["unlearn_prompts"] == [table()[1]]


@pytest.mark.parametrize(
    ("widgets", "words"),
    [
        (
            {"dimensions": "\n".join(f"d{i}: {', '.join(map(str, range(50)))}" for i in range(6))},
            "15625000000 combinations",
        ),
        (
            {"templates": "{concept}" + "{word}" * 9000, "dimensions": f"word: {'x' * 9000}, y"},
            "templates: a text must have 10000 characters or fewer",
        ),
        ({"edited_prompts": "x" * 20_000_001}, "the limit is 20000000"),
    ],
    ids=["combinations", "length", "table"],
)
def test_hostile_words_do_not_exhaust_the_memory(widgets: dict[str, str], words: str) -> None:
    widgets = {"templates": "{concept}", **widgets}
    with pytest.raises(ValueError, match=words):
        run_node(NODE, concept=concept(), **widgets)


def test_too_many_rows_are_refused() -> None:
    """A page must not make the server build endless prompts."""
    status, answer = table(train_count=10**9)
    assert status == 400
    assert "train_count" in answer["error"]
