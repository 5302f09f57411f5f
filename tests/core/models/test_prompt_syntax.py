"""ComfyUI's syntax of prompts, and prompts of more than 77 tokens."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unlearn_core.dataset.drawing import picture_key
from unlearn_core.dataset.own_pictures import OwnPictures
from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.models.errors import ModelError, UnsupportedError
from unlearn_core.models.load import load_model
from unlearn_core.models.prompt_syntax import SYNTAX_VERSION, closed, is_plain, weighted_parts
from unlearn_core.models.protocol import Conditioning, Embeddings, ModelHandle
from unlearn_core.prompts.concept import ForgetConcept
from unlearn_core.prompts.pairs import PromptPair, PromptPairs
from unlearn_core.saving.run_state import run_identity
from unlearn_core.unlearning.methods import check
from unlearn_core.unlearning.settings import LAST_TOKEN, UCE, UCE_TOKENS, UnlearnSettings
from unlearn_core.unlearning.uce import edits

DRAWING = GenerationSettings()
LONG = "a photograph of a cat on a table beside a window, " * 8  # 96 tokens


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a cat", [("a cat", 1)]),
        ("a (cat:1.3) here", [("a ", 1), ("cat", 1.3), (" here", 1)]),
        ("((cat))", [("cat", 1.1 * 1.1)]),
        ("(a (cat:0.5) b:2)", [("a ", 2), ("cat", 0.5), (" b", 2)]),
        (r"cat \(animal\)", [("cat (animal)", 1)]),
        ("[cat] {dog} <lora:x:1> BREAK", [("[cat] {dog} <lora:x:1> BREAK", 1)]),
        ("(cat", [("(cat", 1)]),
        ("cat)", [("cat)", 1)]),
        ("(:2)", [(":2", 1.1)]),
        ("(10:30)", [("10", 30)]),
        ("", []),
        ("()", []),
    ],
)
def test_the_parts_of_a_prompt(prompt: str, parts: list[tuple[str, float]]) -> None:
    found = weighted_parts(prompt)
    assert [text for text, _ in found] == [text for text, _ in parts]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in parts])


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("(cat:nan)", "a weight must be a finite number, got nan"),
        ("(cat:1e999)", "a weight must be a finite number, got inf"),
        ("(" * 2000 + "cat" + ")" * 2000, "at most 100 brackets"),
        ("cat, embedding:bad-hands:1", "'embedding:bad-hands' needs a file of ComfyUI"),
        ("(embedding:ink:1.2)", "'embedding:ink' needs a file of ComfyUI"),
        ("a cat \ud83d", "contains half of a character"),
        ("cat " * 400, "at most 225 tokens, got 400"),
    ],
)
def test_what_cannot_be_followed_is_refused(
    sd_model: ModelHandle, prompt: str, message: str
) -> None:
    with pytest.raises(UnsupportedError, match=message):
        sd_model.check_prompts(["a cat", prompt])


def test_a_run_is_refused_before_anything_is_drawn(
    sd_model: ModelHandle, pairs: PromptPairs
) -> None:
    pair = PromptPair("ink, embedding:x", "oil, embedding:x", "oil", {})
    changed = replace(pairs, test=(pair,))
    for settings in (UnlearnSettings(), UnlearnSettings(method=UCE)):
        check(sd_model, pairs, settings)
        with pytest.raises(UnsupportedError, match="embedding:x"):
            check(sd_model, changed, settings)
    captioned = OwnPictures((torch.zeros(3, 8, 8, dtype=torch.uint8),), ("oil, embedding:x",))
    with pytest.raises(UnsupportedError, match="embedding:x"):
        check(sd_model, pairs, UnlearnSettings(), None, captioned)


def test_the_start_of_a_prompt_is_closed() -> None:
    assert closed("a (cat, ((ink") == "a (cat, ((ink)))"
    assert closed(r"a \(cat, (ink)") == r"a \(cat, (ink)"


def test_a_weight_changes_the_word_alone(sd_model: ModelHandle) -> None:
    plain, heavy, light = sd_model.encode_prompts(
        ["a cat in ink style", "a cat in (ink:1.5) style", "a cat in (ink:1.0) style"]
    ).text_inputs()["tokens"]
    assert torch.equal(plain, light)
    assert (plain - heavy).abs().amax(-1).nonzero().flatten().tolist() == [4]


def test_rows_of_different_length_in_one_batch(sd_model: ModelHandle) -> None:
    """Each prompt gives the prediction that it gives alone, in any selection of rows."""
    prompts = ["a cat", LONG, LONG + LONG, ""]
    encoded = sd_model.encode_prompts(prompts)
    lengths = [len(row) for row in encoded.text_inputs()["tokens"]]
    assert lengths == [77, 154, 231, 77]
    latents = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    t = sd_model.times(torch.full((4,), 0.5))

    def predict(conditioning: Conditioning, rows: list[int]) -> torch.Tensor:
        return sd_model.predict(latents[rows], conditioning, t[rows])

    alone = torch.cat([predict(sd_model.encode_prompts([prompts[i]]), [i]) for i in range(4)])
    assert (alone[1] - alone[0]).abs().max() > 1e-3
    for rows in ([0, 1, 2, 3], [1, 0], [0, 3], [2]):
        torch.testing.assert_close(predict(encoded[rows], rows), alone[rows])
        joined = Conditioning.cat([encoded[[row]] for row in rows])
        torch.testing.assert_close(predict(joined, rows), alone[rows])
    assert isinstance(encoded, Embeddings)
    short = encoded[[0, 3]]
    assert isinstance(short, Embeddings)
    assert short.values.shape[1] == 77


def test_short_prompts_are_encoded_as_transformers_encodes_them(sd_model: ModelHandle) -> None:
    text = sd_model.text  # type: ignore[attr-defined]
    clip = text.clips[0]
    prompts = ["a cat, in ink style!", "", "word " * 75]
    tokens = clip.tokenizer(
        prompts, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        expected = clip.encoder(tokens.input_ids)[0]
    assert torch.equal(
        torch.stack(list(sd_model.encode_prompts(prompts).text_inputs()["tokens"])), expected
    )


@pytest.mark.parametrize("tokens", UCE_TOKENS)
@pytest.mark.parametrize("start", [LONG, LONG[:300], LONG + LONG[:200], ""])
def test_a_concept_behind_token_77_is_edited(
    sd_model: ModelHandle, start: str, tokens: str
) -> None:
    """The closed-form edit changes the concept's own token, in whatever chunk it stands."""
    concept = ForgetConcept("ink", replacements=("oil",))
    pair = PromptPair(f"{start}(ink style:1.2)", f"{start}(oil style:1.2)", "oil", {})
    pairs = PromptPairs(concept, (pair,), (pair,), {})
    edited = edits(sd_model, pairs, 1.0, tokens)
    weights = dict(sd_model.named_parameters())
    name = next(name for name in edited if name.endswith("to_k.weight"))
    forget, retain = (
        sd_model.encode_prompts([prompt]).text_inputs()["tokens"][0]
        for prompt in (pair.forget, pair.retain)
    )
    place = int((forget - retain).abs().amax(-1).gt(1e-4).int().argmax())
    assert bool(start) == (place > 77) or start == LONG[:300]
    before, target = (row[place] @ weights[name].T for row in (forget, retain))
    after = forget[place] @ edited[name].float().T
    assert (after - target).norm() < 0.9 * (before - target).norm()
    assert tokens != LAST_TOKEN or (after - before).norm() > 0


def test_stable_diffusion_3_and_flux_refuse_what_they_would_cut(
    sd3_folder: Path, sd3_t5_folder: Path, flux_folder: Path
) -> None:
    for model in map(load_model, (sd3_folder, sd3_t5_folder)):
        model.check_prompts(["w " * 100])
        with pytest.raises(UnsupportedError, match=r"at most \d+ tokens, got"):
            model.check_prompts(["a cat", "w " * 256])
        assert len(model.encode_prompts(["w " * 75, "w " * 300])) == 2  # probes lengthen prompts
    flux = load_model(flux_folder)
    flux.check_prompts([LONG])
    with pytest.raises(UnsupportedError, match=r"at most \d+ tokens, got"):
        flux.check_prompts([LONG * 6])


def test_a_tokenizer_without_a_limit_has_the_encoder_s(
    sd_folder: Path, sd_model: ModelHandle, tmp_path: Path
) -> None:
    """Some converted folders have no ``model_max_length``, or T5's 512."""
    folder = Path(shutil.copytree(sd_folder, tmp_path / "unlimited"))
    file = folder / "tokenizer" / "tokenizer_config.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    expected = sd_model.encode_prompts([LONG]).text_inputs()["tokens"][0]
    for limit in (None, 512):
        content["model_max_length"] = limit
        file.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
        (tokens,) = load_model(folder).encode_prompts([LONG]).text_inputs()["tokens"]
        assert torch.equal(tokens, expected)


def test_a_tokenizer_without_its_vocabulary(sd_folder: Path, tmp_path: Path) -> None:
    """transformers 5 opens it, and then all prompts are alike."""
    folder = Path(shutil.copytree(sd_folder, tmp_path / "no-words"))
    for file in (folder / "tokenizer").iterdir():
        if file.name != "tokenizer_config.json":
            file.unlink()
    with pytest.raises(ModelError, match="no-words/tokenizer"):
        load_model(folder)


def test_t5_weighs_words(flux_folder: Path) -> None:
    flux = load_model(flux_folder)
    plain, heavy = flux.encode_prompts(["a cat in (ink:1)", "a cat in (ink:1.5)"]).text_inputs()[
        "tokens"
    ]
    changed = (plain - heavy).abs().amax(-1).nonzero().flatten().tolist()
    assert changed
    assert len(changed) < 5  # of 512


def test_only_prompts_that_are_encoded_differently_have_new_keys(
    sd_model: ModelHandle, pairs: PromptPairs
) -> None:
    for prompt, plain in (("a cat", True), ("(cat)", False), (r"\(", False), ("cat " * 30, False)):
        assert is_plain(prompt) is plain
    assert picture_key(sd_model, "(cat)", 0, DRAWING) != picture_key(sd_model, "cat", 0, DRAWING)
    settings = UnlearnSettings()
    assert "encoding" not in run_identity(sd_model, pairs, settings, DRAWING, None, None)
    pair = PromptPair("(ink:1.2)", "(oil:1.2)", "oil", {})
    changed = replace(pairs, train=(pair,))
    identity = run_identity(sd_model, changed, settings, DRAWING, None, None)
    assert identity["encoding"] == SYNTAX_VERSION
