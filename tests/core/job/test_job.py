"""The command line and its jobs on a tiny model: every stage and every error."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

from unlearn_core.dataset.cache import LatentCache
from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.foundation.locks import only_run_in
from unlearn_core.foundation.own_files import MANIFEST
from unlearn_core.job import engine, job
from unlearn_core.job.cli import main
from unlearn_core.job.settings_file import read_settings
from unlearn_core.prompts.concept import ForgetConcept
from unlearn_core.prompts.diversify import diversify
from unlearn_core.prompts.files import read_prompt_file, write_prompts
from unlearn_core.unlearning.loop import Unlearning
from unlearn_core.unlearning.results import StepReport

from ..tiny_models import write_language_model

Content = dict[str, Any]
DEMO = Path(__file__).parents[3] / "demo" / "models" / "emoji-canvas"


@pytest.fixture
def content(sd_folder: Path) -> Content:
    """The content of a complete settings file."""
    return {
        "model": str(sd_folder),
        "concept": {"name": "ink", "kind": "style", "replacements": ["noto", "pixel"]},
        "prompts": {
            "templates": ["a {object} in {concept} style"],
            "dimensions": {"object": ["cat", "dog", "house", "tree"]},
            "train_count": 4,
            "test_count": 2,
        },
        "generation": {"steps": 2},
        "unlearn": {"steps": 2, "batch_size": 2, "learning_rate": 1e-3},
        "evaluation": {"pictures": 2, "generation": {"steps": 2, "seed": 99}},
    }


@pytest.fixture
def settings(content: Content, tmp_path: Path) -> Path:
    return write(content, tmp_path)


def write(content: Content, folder: Path) -> Path:
    file = folder / "settings.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def run(stage: str, settings: Path, *more: str) -> int:
    folders = ("--out", str(settings.parent / "out"), "--cache", str(settings.parent / "cache"))
    return main([stage, str(settings), *(() if stage == "prompts" else folders), *more])


def test_run_writes_the_report_and_its_pictures(
    settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("run", settings, "--json") == 0
    out = settings.parent / "out"
    report = json.loads((out / "report.json").read_text())
    assert json.loads(capsys.readouterr().out) == report
    assert report["concept"]["name"] == "ink"
    assert report["settings"]["steps"] == len(report["steps"]) == 2
    assert {"making images", "unlearning", "evaluating", "saving"} <= report["seconds"].keys()
    for side in ("before", "after"):
        assert report[side]["unlearning_accuracy"] is None  # this model has no judge
        assert report[side]["alignment"].keys() == {"forget", "retain_train", "retain_test"}
    assert {"cosine", "conflict", "forget_loss", "grad_forget_norm"} <= report["steps"][0].keys()
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert report["each_picture"]["forget"][0]["prompt"] in page
    for picture in ("loss.png", "before_after.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")


def test_diffusers_loads_the_unlearned_model_from_the_saved_folder(
    settings: Path, sd_folder: Path
) -> None:
    assert run("run", settings) == 0
    saved = settings.parent / "out" / "model"
    changed = load_file(settings.parent / "out" / "unlearned.safetensors")
    pipeline = StableDiffusionPipeline.from_pretrained(
        saved, safety_checker=None, local_files_only=True
    )
    weights = pipeline.unet.state_dict()
    base = load_file(sd_folder / "unet" / "diffusion_pytorch_model.safetensors")
    assert changed
    for name, tensor in base.items():
        expected = changed[name].to(tensor.dtype) if name in changed else tensor
        torch.testing.assert_close(weights[name], expected.float(), rtol=0, atol=1e-3)
    before = (sd_folder / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()
    assert (saved / "vae" / "diffusion_pytorch_model.safetensors").read_bytes() == before


def test_the_separate_stages_give_the_same_result_as_run(settings: Path) -> None:
    for stage in ("unlearn", "evaluate", "save"):
        assert run(stage, settings) == 0
    assert (settings.parent / "out" / "report.html").is_file()
    report = json.loads((settings.parent / "out" / "report.json").read_text())
    assert {"making images", "evaluating", "saving"} <= report["seconds"].keys()
    saved_report = json.loads((settings.parent / "out/model/unlearn_report.json").read_text())
    assert saved_report["after"] == report["after"] is not None
    assert run("unlearn", settings) == 0
    assert not (settings.parent / "out" / "report.html").exists(), (
        "it describes the previous weights"
    )
    staged = load_file(settings.parent / "out" / "unlearned.safetensors")
    weights = settings.parent / "out/model/unet/diffusion_pytorch_model.safetensors"
    saved = load_file(weights)
    assert run("run", settings) == 0
    again = load_file(settings.parent / "out" / "unlearned.safetensors")
    assert staged.keys() == again.keys()
    assert all(torch.equal(staged[name], again[name]) for name in staged)
    assert all(torch.equal(saved[name], tensor) for name, tensor in load_file(weights).items())


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("unlearn", "steps", 3),
        ("concept", "synonyms", ["inky"]),
        ("prompts", "seed", 1),
        ("generation", "seed", 1),
        ("loading", "image_size", 128),
        ("retain_pictures", "alone", True),
    ],
)
def test_a_later_stage_refuses_the_weights_of_other_settings(
    content: Content,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    section: str,
    field: str,
    value: object,
) -> None:
    pictures(tmp_path / "mine", 2)
    content["retain_pictures"] = {"folder": "mine", "captions": "a cat"}
    assert run("unlearn", write(content, tmp_path)) == 0
    content.setdefault(section, {})[field] = value
    assert run("save", write(content, tmp_path)) == 2
    error = capsys.readouterr().err
    assert f"error: {section}: the settings differ from those of the unlearned model" in error
    if section in ("unlearn", "generation"):
        assert f"now {value!r})" in error
    assert not (tmp_path / "out" / "model").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "{file}"), "error: out: cannot write into"),
        (("--out", "{file}/below"), "error: out: cannot write into"),
        (("--cache", "{file}"), "error: cache: cannot write into"),
        (
            ("--as", "checkpoint"),
            "is a folder, which cannot be saved as a checkpoint; choose 'folder'",
        ),
        (("--as", "lora", "--rank", "0"), "error: rank must be 1 or more, got 0"),
        (("--device", "foo"), "error: device: 'foo' is not available"),
        (("--out", "{source}"), "contains the original model, which is never overwritten"),
    ],
)
def test_an_impossible_destination_is_refused_before_any_work(
    content: Content,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    file, source = tmp_path / "file", tmp_path / "earlier"
    file.write_text("")
    shutil.copytree(content["model"], source / "model")
    content["model"] = str(source / "model")
    paths = {"file": file, "source": source}
    more = [argument.format(**paths) for argument in arguments]
    assert run("run", write(content, tmp_path), *more) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "cache").exists(), "pictures were drawn before the refusal"


@pytest.mark.parametrize("name", ["model", "model.safetensors"])
def test_the_original_model_is_never_overwritten(
    content: Content, tmp_path: Path, name: str
) -> None:
    instance = job.Job(read_settings(write(content, tmp_path)), tmp_path / "out")
    instance.check_save("as-loaded", 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).touch()
    # By another path to the same file.
    instance.settings = replace(instance.settings, model=tmp_path / "out" / ".." / "out" / name)
    with pytest.raises(ValueError, match="contains the original model"):
        instance.check_save("as-loaded", 1)


def test_a_lora_of_a_low_rank_reports_its_share_of_the_change(
    content: Content, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content["unlearn"]["scope"] = "full"
    assert run("unlearn", write(content, tmp_path)) == 0
    assert run("save", write(content, tmp_path), "--as", "lora", "--rank", "1") == 0
    output = capsys.readouterr().out
    (share,) = re.findall(r"Saved: .*model\.safetensors \(captures (.*) % of the change\)", output)
    assert 0 < float(share) < 100


def test_own_pictures_used_alone_must_show_every_concept(
    content: Content, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise the run would silently not forget the other concept."""
    pictures(tmp_path / "mine", 2)
    content["forget_pictures"] = {"folder": "mine", "captions": "an ink cat", "alone": True}
    other = {"name": "oil", "kind": "style", "replacements": ["noto"]}
    content["also"] = [{"concept": other, "prompts": content["prompts"]}]
    assert run("unlearn", write(content, tmp_path)) == 2
    assert "forget_pictures.alone: no picture shows 'oil'" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_an_evaluation_draws_like_the_rest_but_from_its_own_seeds(
    content: Content, tmp_path: Path
) -> None:
    content["generation"] = {"steps": 5, "guidance_scale": 2.0, "batch_size": 3, "seed": 7}
    content["evaluation"]["generation"] = {"steps": 4}
    assert read_settings(write(content, tmp_path)).evaluation.generation == GenerationSettings(
        steps=4, guidance_scale=2.0, batch_size=3, seed=1_000_000
    )
    del content["evaluation"]
    assert read_settings(write(content, tmp_path)).evaluation.generation == GenerationSettings(
        steps=5, guidance_scale=2.0, batch_size=3, seed=1_000_000
    )


def test_the_same_weights_can_be_evaluated_with_other_prompts(
    content: Content, tmp_path: Path
) -> None:
    assert run("unlearn", write(content, tmp_path)) == 0
    content["prompts"]["test_count"] = 1
    assert run("evaluate", write(content, tmp_path)) == 0


def test_the_same_weights_can_be_evaluated_in_smaller_batches(
    content: Content, tmp_path: Path
) -> None:
    """After running out of memory, for example."""
    assert run("unlearn", write(content, tmp_path)) == 0
    content["generation"]["batch_size"] = 1
    assert run("evaluate", write(content, tmp_path)) == 0


def test_a_lora_of_a_class_conditional_model_is_refused(
    content: Content, tmp_path: Path, class_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content["model"] = str(class_folder)
    content["concept"] = {"name": "cat", "kind": "class", "replacements": ["dog"]}
    content["prompts"]["templates"] = ["{object} {concept}"]
    content["prompts"]["dimensions"] = {"object": ["a", "the", "one", "some"]}
    content["unlearn"]["scope"] = "full"
    assert run("run", write(content, tmp_path), "--as", "lora") == 2
    assert "as: 'tiny-class' is class-conditional, and no program loads" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_a_method_without_steps_runs_the_complete_job(content: Content, tmp_path: Path) -> None:
    content["unlearn"] = {"method": "UCE (closed form)"}
    assert run("run", write(content, tmp_path)) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["steps"] == []
    count = len(list((tmp_path / "cache").iterdir()))
    assert count == 3 * 2, "pictures only for the evaluation"
    assert load_file(tmp_path / "out" / "unlearned.safetensors")


def test_a_run_without_a_finished_step_leaves_an_earlier_result_untouched(
    settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("unlearn", settings) == 0
    file = settings.parent / "out" / "unlearned.safetensors"
    before = file.read_bytes()

    def fails(self: Unlearning) -> StepReport:
        raise ValueError("a gradient is not finite")

    monkeypatch.setattr(Unlearning, "_step", fails)
    assert run("unlearn", settings) == 2
    assert file.read_bytes() == before


def test_every_field_of_the_prompts_has_an_effect(content: Content, tmp_path: Path) -> None:
    counts = {"train_count": 5, "test_count": 3, "invented_names": 2, "gibberish_names": 3}
    more = {**counts, "test_share": 0.5, "seed": 9}
    content["prompts"].update(more)
    actual = read_settings(write(content, tmp_path)).pairs()
    templates, dimensions = content["prompts"]["templates"], content["prompts"]["dimensions"]
    assert actual == diversify(actual.concept, templates, dimensions, **more)
    for name in more:
        fewer = {**more, name: 0.25 if name == "test_share" else 1}
        assert actual != diversify(actual.concept, templates, dimensions, **fewer)


def test_paths_in_a_settings_file_are_relative_to_it(content: Content, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    pairs = read_settings(write(content, tmp_path)).pairs()
    (elsewhere / "ink.json").write_text(write_prompts(pairs), encoding="utf-8")
    content["prompts"] = {"file": "ink.json"}
    content["also"] = [{"concept": {"name": "cat"}, "prompts": {"file": "cat.json"}}]
    content["loading"] = {"vae": "vae.safetensors"}
    settings = read_settings(write(content, elsewhere))
    assert settings.prompts.file == elsewhere / "ink.json"
    assert settings.also[0].prompts.file == elsewhere / "cat.json"
    assert settings.loading.vae == elsewhere / "vae.safetensors"
    assert replace(settings, also=()).pairs() == pairs


def test_files_of_an_earlier_run_are_deleted(content: Content, tmp_path: Path) -> None:
    place = {"templates": ["a {concept} in {place}"], "dimensions": {"place": ["town", "sea"]}}
    cat = {"name": "yak", "kind": "object", "replacements": ["fox"]}
    both = {**content, "also": [{"concept": cat, "prompts": place}]}
    assert run("unlearn", write(both, tmp_path)) == 0
    out = tmp_path / "out"
    assert (out / "prompts-2.json").exists()
    assert (out / "loss.png").exists()
    content["unlearn"] = {"method": "UCE (closed form)"}
    assert run("unlearn", write(content, tmp_path)) == 0
    assert not (out / "prompts-2.json").exists()
    assert not (out / "loss.png").exists()


@pytest.mark.parametrize("name", ["prompts.json", "report.json", "loss.png", "model"])
def test_the_users_own_files_in_the_folder_are_never_replaced(
    settings: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """They are refused before the model is loaded; all others stay as they are."""
    out = settings.parent / "out"
    (out / "model").mkdir(parents=True)
    mine = out / name if name != "model" else out / "model" / "model_index.json"
    mine.write_bytes(b"mine")
    assert run("run", settings) == 2
    assert f"'{name}'" in (error := capsys.readouterr().err)
    assert "Unlearn" in error
    assert mine.read_bytes() == b"mine"
    assert not (out / "unlearned.safetensors").exists()


def test_other_files_in_the_folder_stay(settings: Path, content: Content, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("run", settings) == 0
    mine = [out / "prompts-mine.json", out / "prompts-2.json", out / "model" / "notes.txt"]
    for file in mine:
        file.write_bytes(b"mine")
    content["unlearn"]["seed"] = 1
    assert run("run", write(content, tmp_path)) == 0
    assert all(file.read_bytes() == b"mine" for file in mine)


def test_a_changed_result_is_not_replaced(
    settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("unlearn", settings) == 0
    prompts = settings.parent / "out" / "prompts.json"
    prompts.write_text("changed")
    assert run("unlearn", settings) == 2
    assert "'prompts.json'" in capsys.readouterr().err
    assert prompts.read_text() == "changed"


def test_a_folder_of_an_earlier_version_is_used_again(settings: Path) -> None:
    """It has no list of its files."""
    assert run("run", settings) == 0
    out = settings.parent / "out"
    (out / MANIFEST).unlink()
    assert run("run", settings) == 0
    assert (out / MANIFEST).exists()


def test_two_runs_do_not_share_a_folder(settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with only_run_in(settings.parent / "out"):
        assert run("unlearn", settings) == 2
    assert "out: another run is writing into" in capsys.readouterr().err
    assert run("unlearn", settings) == 0


def test_the_cache_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "cache"
    cache = LatentCache(folder)
    cache.put("0" * 64, torch.zeros(4, 8, 8))
    assert main(["cache", "--cache", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}: 1 picture, 0.00 GB of at most 5.00 GB\n"
    assert main(["cache", "--cache", str(folder), "--limit", "7.5"]) == 0
    assert "of at most 7.50 GB" in capsys.readouterr().out
    assert main(["cache", "--cache", str(folder), "--limit", "nan"]) == 2
    assert "limit must be a number of gigabytes from 0.1" in capsys.readouterr().err
    assert main(["cache", "--cache", str(folder), "--clear"]) == 0
    assert "Deleted: 1 picture, 0.00 GB" in capsys.readouterr().out
    assert cache.size().pictures == 0


def test_out_of_memory_is_reported_with_a_cure(
    settings: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.\nmore")

    monkeypatch.setattr(engine, "begin", full)
    assert run("unlearn", settings) == 2
    errors = capsys.readouterr().err
    assert "error: CUDA out of memory. Tried to allocate 1 GiB.\nlower batch_size" in errors


def test_propose_prints_longer_dimensions(
    settings: Path, content: Content, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_language_model(tmp_path / "llm")
    arguments = ["propose", str(settings), "--language-model", str(model), "--count", "2"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    dimensions = content["prompts"]["dimensions"]
    assert [line.split(":")[0] for line in lines] == list(dimensions)
    for line, values in zip(lines, dimensions.values(), strict=True):
        assert ", ".join(values) in line
    assert main([*arguments[:3], str(tmp_path / "nothing")]) == 2
    assert "language_model: 'nothing' has no config.json" in capsys.readouterr().err
    assert main([*arguments[:-1], "0"]) == 2
    assert "count must be 1 or more, got 0" in capsys.readouterr().err
    content["prompts"] = {"file": "mine.json"}
    assert main([arguments[0], str(write(content, tmp_path)), *arguments[2:]]) == 2
    assert "prompts.file: 'mine.json' contains complete prompts" in capsys.readouterr().err

    place = {"place": ["town", "sea"]}
    cat = {"concept": {"name": "cat", "kind": "object"}, "prompts": {"dimensions": place}}
    cat["prompts"]["templates"] = ["a {concept} in {place}"]
    settings.write_text(json.dumps({**content, "also": [cat]}), encoding="utf-8")
    assert main([*arguments, "--concept", "cat", "--json"]) == 0
    extended = json.loads(capsys.readouterr().out)
    assert list(extended) == ["place"]
    assert extended["place"][:2] == place["place"]
    outputs = set()
    for seed in range(6):
        cat["prompts"]["seed"] = seed
        settings.write_text(json.dumps({**content, "also": [cat]}), encoding="utf-8")
        assert main([*arguments, "--concept", "cat", "--json"]) == 0
        outputs.add(capsys.readouterr().out)
    assert len(outputs) > 1, "the seed of the prompts also seeds the proposals"
    assert main([*arguments, "--concept", "dog"]) == 2
    assert "concept must be one of ink, cat, got 'dog'" in capsys.readouterr().err


def test_prompts_shows_the_pairs_and_draws_nothing(
    settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("prompts", settings, "--json") == 0
    prompts = json.loads(capsys.readouterr().out)
    assert len(prompts["train"]) == 4
    assert all("ink" in pair["forget"] for pair in prompts["train"] + prompts["test"])
    assert not (settings.parent / "cache").exists()


class Console(io.TextIOWrapper):
    """A console or redirected file with an encoding that lacks most characters."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, write_through=True)

    def content(self) -> bytes:
        self.seek(0)
        return bytes(self.buffer.read())


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "cp437"])
@pytest.mark.parametrize("redirect", ["utf-16", "utf-8-sig"])
def test_what_is_printed_is_read_back_on_any_console(
    content: Content,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    encoding: str,
    redirect: str,
) -> None:
    """PowerShell decodes the output of a command with the console's code page, and redirects it
    as UTF-16."""
    content["concept"].update(name="水墨", replacements=["Dalí’s", "浮世絵 🐈"])
    settings = write(content, tmp_path)
    settings.write_text(settings.read_text(encoding="utf-8"), encoding=redirect)
    monkeypatch.setattr(sys, "stdout", Console(encoding))
    assert run("prompts", settings, "--json") == 0
    assert isinstance(sys.stdout, Console)
    printed = sys.stdout.content().decode("cp850")
    (tmp_path / "p.json").write_text(printed, encoding=redirect)
    expected = read_settings(settings)
    assert read_prompt_file(tmp_path / "p.json", expected.concept) == expected.pairs()


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_no_character_ends_a_command_in_an_error(
    content: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    content["concept"].update(name="水墨", replacements=["Dalí"])
    settings = write(content, tmp_path)
    monkeypatch.setattr(sys, "stdout", Console(encoding))
    assert run("prompts", settings) == 0
    assert run("run", settings) == 0
    assert isinstance(sys.stdout, Console)
    assert "\\u6c34\\u58a8" in sys.stdout.content().decode(encoding)
    with pytest.raises(SystemExit, match="0"):
        main(["settings", "--help"])


def test_prompts_warns_of_too_few_different_pairs(
    content: Content, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content["prompts"]["test_count"] = 500
    assert run("prompts", write(content, tmp_path)) == 0
    warnings = capsys.readouterr().err
    assert re.search(r"^ink, test: only \d+ of the 500 pairs differ, ", warnings, re.MULTILINE)


@pytest.mark.parametrize(
    ("section", "field", "value", "message"),
    [
        ("unlearn", "steps", -1, "steps must be 0 or more, got -1"),
        ("unlearn", "steps", 10**9, "steps must be 100000 or less, got 1000000000"),
        ("unlearn", "learning_rate", 5, "learning_rate must be 1 or less, got 5"),
        ("unlearn", "method", "magic", "method must be one of"),
        ("unlearn", "stepz", 1, "unknown field 'stepz'"),
        ("concept", "name", " ", "concept must name what to forget"),
        ("prompts", "templates", ["a cat"], "does not contain the concept"),
        ("prompts", "train_count", 0, "train_count must be 1 or more, got 0"),
        ("prompts", "train_count", "240", "train_count must be a whole number"),
        ("prompts", "templates", "a {concept}", "templates must be a list of texts"),
        ("prompts", "dimensions", {"object": "cat, dog"}, "dimensions.object must be a list"),
        ("prompts", "dimensions", [], "dimensions must be an object"),
        (None, "prompts", {"file": "missing.json"}, "cannot read 'missing.json'"),
        (
            None,
            "prompts",
            {"file": "missing.json", "invented_names": 4},
            "prompts: file contains complete prompts; leave invented_names out",
        ),
        (
            "prompts",
            "file",
            "missing.json",
            "prompts: file contains complete prompts; leave temp",
        ),
        ("concept", "replacements", "noto", "replacements must be a list of texts"),
        (
            "concept",
            "replacements",
            ["noto，twemoji"],
            "replacements must contain each word as a text of its own, got 'noto，twemoji'; write "
            '["noto", "twemoji"]',
        ),
        ("prompts", "candidates", ["noto, pixel", "fluent"], "candidates must contain each word"),
        ("concept", "name", 5, "concept must be a word, got 5"),
        (None, "model", 5, "model must be the path of a model, relative"),
        (None, "evaluation", 5, "evaluation must be an object, got int"),
        ("evaluation", "pictures", 0, "pictures must be 1 or more"),
        ("evaluation", "probes", "hard", "probes must be one of 'none', 'quick', 'thorough'"),
        ("evaluation", "scorer", 5, "scorer must be the path of a folder, got 5"),
        (
            "evaluation",
            "scorer",
            "nowhere",
            "'nowhere' is not a folder with open_clip_config",
        ),
        (None, "model", "missing", "does not exist"),
        (None, "modle", "x", "unknown field 'modle'"),
    ],
)
def test_an_error_is_one_line_that_names_the_field(
    content: Content,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    section: str | None,
    field: str,
    value: object,
    message: str,
) -> None:
    (content if section is None else content[section])[field] = value
    assert run("run", write(content, tmp_path)) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert message in errors[-1]
    assert errors[-1].startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_missing_fields_and_files_are_named(
    tmp_path: Path, content: Content, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("run", tmp_path / "nowhere.json") == 2
    assert "does not exist" in capsys.readouterr().err
    del content["model"]
    assert run("run", write(content, tmp_path)) == 2
    assert "settings: 'model' is missing" in capsys.readouterr().err
    (tmp_path / "settings.json").write_text("{")
    assert run("run", tmp_path / "settings.json") == 2
    assert "is not JSON" in capsys.readouterr().err


def test_evaluate_and_save_need_an_unlearned_model(
    settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage in ("evaluate", "save"):
        assert run(stage, settings) == 2
        errors = capsys.readouterr().err
        assert "out: no unlearned model" in errors
        assert "run `unlearn` first" in errors
        assert "loading" not in errors, "checked before the model is loaded"


def pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    for i in range(count):
        Image.new("RGB", (40, 40), (40 * i, 90, 120)).save(folder / f"{i}.png")
    return folder


def test_own_pictures_replace_drawn_ones(content: Content, tmp_path: Path) -> None:
    pictures(tmp_path / "mine", 3)
    content["forget_pictures"] = {"folder": "mine", "captions": "a cat in ink style", "alone": True}
    assert run("unlearn", write(content, tmp_path)) == 0
    files = list((tmp_path / "cache").iterdir())
    assert len(files) == 3, "only the parallels of the own pictures are drawn"


@pytest.mark.parametrize(
    ("field", "section", "message"),
    [
        (
            "forget_pictures",
            {"folder": "none"},
            r"forget_pictures\.folder: '.*none' does not exist",
        ),
        (
            "retain_pictures",
            {"folder": "mine"},
            r"retain_pictures\.captions: '0\.png' has no caption; add '0\.txt'",
        ),
        ("forget_pictures", {"folder": "mine", "captions": "a cat"}, "'a cat' does not mention"),
        ("retain_pictures", {"folder": "mine", "captions": "ink"}, "of a retain picture mentions"),
        ("retain_pictures", {"folder": "mine", "of": 1}, "retain_pictures: unknown field 'of'"),
        ("retain_pictures", {"captions": "a cat"}, "retain_pictures: .*'folder'"),
        ("retain_pictures", {"folder": 3}, "folder must be the path of a folder, got 3"),
    ],
)
def test_own_pictures_that_cannot_be_used(
    content: Content,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    field: str,
    section: Content,
    message: str,
) -> None:
    pictures(tmp_path / "mine", 1)
    content[field] = section
    assert run("unlearn", write(content, tmp_path)) == 2
    assert re.search(message, capsys.readouterr().err)


def test_the_nearest_candidates_join_the_replacements(
    content: Content, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content["prompts"] |= {"neighbours": 1, "candidates": ["fluent", "twemoji", "noto"]}
    content["evaluation"]["scorer"] = str(DEMO / "evaluation")
    settings = write(content, tmp_path)
    assert run("unlearn", settings) == 0
    assert run("evaluate", settings) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    *before, nearest = report["concept"]["replacements"]
    capsys.readouterr()
    assert before == ["noto", "pixel"]
    assert nearest in ("fluent", "twemoji")
    # The complete prompts can be shared: they need no model and no CLIP.
    content["prompts"] = {"file": "out/prompts.json"}
    assert run("prompts", write(content, tmp_path), "--json") == 0
    assert nearest in json.loads(capsys.readouterr().out)["concept"]["replacements"]


def test_neighbours_are_compared_by_the_settings(
    content: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content["prompts"] |= {"neighbours": 2, "candidates": ["fluent", "twemoji", "noto"], "seed": 5}
    content["evaluation"]["scorer"] = str(DEMO / "evaluation")
    calls: list[dict[str, Any]] = []
    compare = job.with_neighbours

    def spy(*arguments: Any, **options: Any) -> ForgetConcept:
        calls.append(options)
        return compare(*arguments, **options)

    monkeypatch.setattr(job, "with_neighbours", spy)
    settings = read_settings(write(content, tmp_path))
    replacements = job.Job(settings, tmp_path / "out").task.pairs.concept.replacements
    assert replacements[:2] == ("noto", "pixel")
    assert set(replacements[2:]) == {"fluent", "twemoji"}
    assert [options["seed"] for options in calls] == [5]
    assert calls[0]["drawing"] == settings.generation


def test_neighbours_need_a_clip(
    content: Content, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content["prompts"] |= {"neighbours": 1, "candidates": ["fluent"]}
    assert run("unlearn", write(content, tmp_path)) == 2
    assert "has no CLIP to compare pictures with" in capsys.readouterr().err
    content["prompts"]["candidates"] = []
    assert run("prompts", write(content, tmp_path)) == 2
    assert "candidates: there are none" in capsys.readouterr().err


def test_the_demo_model_supports_the_example_in_the_docs(tmp_path: Path) -> None:
    page = (DEMO.parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    settings = read_settings(write(json.loads(example), tmp_path))
    judge = json.loads((DEMO / "evaluation" / "judge.json").read_text(encoding="utf-8"))
    for name, values in settings.prompts.dimensions.items():
        assert set(values) <= set(judge["dimensions"][name])
    prompts = {pair.forget for pair in settings.pairs().test}
    assert len(prompts) >= 5, "enough different prompts for an evaluation"


def test_the_loss_in_16_bits_is_reported(
    content: Content, sd_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline: Any = StableDiffusionPipeline.from_pretrained(sd_folder, safety_checker=None)
    pipeline.to(torch.bfloat16).save_pretrained(tmp_path / "half")
    content["model"] = str(tmp_path / "half")
    assert run("unlearn", write(content, tmp_path)) == 0
    assert run("save", write(content, tmp_path)) == 0
    message = r"Precision: in 16 bits, \d+ % of the trained weights get their old value back; .* %"
    assert re.search(message, capsys.readouterr().out)
    assert run("save", write(content, tmp_path), "--as", "lora") == 0
    assert "Precision" not in capsys.readouterr().out
