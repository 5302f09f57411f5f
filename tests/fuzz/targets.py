"""The parsers to fuzz. Each takes the bytes of a file, a text or a request, and either accepts them
or raises ``ValueError`` or ``OSError``, which become one line for the person."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unlearn_core.dataset.drawing import LatentCache
from unlearn_core.dataset.own_pictures import read_folder, with_captions
from unlearn_core.foundation.json_file import read_object
from unlearn_core.foundation.safetensors_file import non_finite_in, read_header
from unlearn_core.job.settings_file import read_settings
from unlearn_core.judging.clip_scorer import SCORER_CONFIG, SCORER_WEIGHTS, check_scorer
from unlearn_core.judging.judge import JUDGE_FILE, JUDGE_WEIGHTS, ConvJudge
from unlearn_core.models.load import check_model, load_model
from unlearn_core.prompts.concept import ForgetConcept
from unlearn_core.prompts.diversify import diversify, parse_dimensions
from unlearn_core.prompts.files import read_prompt_file, read_prompts
from unlearn_core.saving.run_state import read_description

CORPUS = Path(__file__).parent / "corpus"
DEMO = Path(__file__).parents[2] / "demo" / "models" / "emoji-canvas" / "evaluation"
INK = ForgetConcept("ink", replacements=("noto",))
Parser = Callable[[bytes, Path], object]


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
        parse: called with the input and an empty folder, the only place for files.
        share: of the inputs of a run, relative to the other targets; slow parsers get fewer.
        seeds: the examples to mutate; by default the files of the corpus that begin with the name.
    """

    name: str
    parse: Parser
    share: float = 1.0
    seeds: Callable[[], Sequence[bytes]] | None = None

    @functools.cached_property
    def examples(self) -> tuple[bytes, ...]:
        if self.seeds is not None:
            return tuple(self.seeds())
        files = sorted(CORPUS.glob(f"{self.name}.*"))
        return tuple(file.read_bytes() for file in files)


def _file(folder: Path, name: str, content: bytes) -> Path:
    file = folder / name
    file.write_bytes(content)
    return file


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")


def settings(content: bytes, folder: Path) -> object:
    return read_settings(_file(folder, "job.json", content))


def prompts(content: bytes, folder: Path) -> object:
    return read_prompt_file(_file(folder, "prompts.json", content), INK)


def table(content: bytes, folder: Path) -> object:
    return read_prompts(_text(content))


def header(content: bytes, folder: Path) -> object:
    file = _file(folder, "file.safetensors", content)
    return _refusing(lambda: (read_header(file), non_finite_in(file)))


def _refusing(parse: Callable[[], object]) -> object:
    """With the library's own error as a refusal, as every caller treats it."""
    from safetensors import SafetensorError

    try:
        return parse()
    except SafetensorError as error:
        raise ValueError(str(error)) from None


def single_file(content: bytes, folder: Path) -> object:
    return check_model(_file(folder, "model.safetensors", content))


def captions(content: bytes, folder: Path) -> object:
    beside = _file(folder, "a.txt", content)
    return with_captions(("a.png", "b.png"), _text(content), (beside, folder / "b.txt"))


def pictures(content: bytes, folder: Path) -> object:
    _file(folder, "a.png", content)  # Pillow goes by the content
    return read_folder(folder, "a cat", True)


def results(content: bytes, folder: Path) -> object:
    return read_description(_file(folder, "unlearned.safetensors", content))


def report(content: bytes, folder: Path) -> object:
    return read_object(_file(folder, "report.json", content))


def cache(content: bytes, folder: Path) -> object:
    _file(folder, "key.safetensors", content)
    return LatentCache(folder).get("key")


def dimensions(content: bytes, folder: Path) -> object:
    """The fields of Diversify Retain Prompts: templates, an empty line, dimensions."""
    templates, _, values = _text(content).partition("\n\n")
    return diversify(
        INK, templates.splitlines(), parse_dimensions(values), train_count=3, test_count=3
    )


def concept(content: bytes, folder: Path) -> object:
    """The words of a concept, one a line, with a prompt that mentions them."""
    name, _, rest = _text(content).partition("\n")
    words = tuple(line for line in rest.splitlines() if line.strip())
    made = ForgetConcept(name, "style", words[:3], words[3:])
    return [made.replaced_in(f"a cat in {name} style, {rest}"[:2000], w) for w in ("noto", "")]


def judge(content: bytes, folder: Path) -> object:
    _file(folder, JUDGE_FILE, content)
    shutil.copyfile(DEMO / JUDGE_WEIGHTS, folder / JUDGE_WEIGHTS)
    return ConvJudge.load(folder)


def scorer(content: bytes, folder: Path) -> object:
    _file(folder, SCORER_CONFIG, content)
    shutil.copyfile(CORPUS / "header.safetensors", folder / SCORER_WEIGHTS)
    return check_scorer(folder)


@functools.cache
def _tiny_folder() -> dict[str, bytes]:
    """A tiny Stable Diffusion, as file name -> content."""
    import tempfile

    from ..core.tiny_models import write_stable_diffusion

    with tempfile.TemporaryDirectory() as place:
        folder = write_stable_diffusion(Path(place) / "model")
        files = [file for file in folder.rglob("*") if file.is_file()]
        return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


SETTINGS_OF_FOLDER = (
    "model_index.json", "scheduler/scheduler_config.json", "unet/config.json", "vae/config.json",
    "text_encoder/config.json", "tokenizer/tokenizer_config.json",
)  # fmt: skip


def _folder_seeds() -> list[bytes]:
    """``name of the file``, a zero byte, ``its content``."""
    files = _tiny_folder()
    return [name.encode() + b"\0" + files[name] for name in SETTINGS_OF_FOLDER if name in files]


def model_folder(content: bytes, folder: Path) -> object:
    name, _, changed = content.partition(b"\0")
    for file, original in _tiny_folder().items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(changed if file.encode() == name else original)
    return load_model(folder)


def folder_settings(content: bytes, folder: Path) -> object:
    """The check of a folder alone, which is quick."""
    for part in ("unet", "scheduler"):
        (folder / part).mkdir()
    _file(folder / "scheduler", "scheduler_config.json", content)
    _file(folder / "unet", "config.json", content)
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "x"], "id2label": {}}
    _file(folder, "model_index.json", json.dumps(index).encode())
    return check_model(folder)


QUICK = (
    settings, prompts, table, header, single_file, captions, results, report, cache, dimensions,
    folder_settings,
)  # fmt: skip
SLOW = {pictures: 0.5, scorer: 0.5, judge: 0.1, concept: 0.03}
TARGETS = (
    *(Target(parse.__name__, parse) for parse in QUICK),
    *(Target(parse.__name__, parse, share) for parse, share in SLOW.items()),
    Target("model_folder", model_folder, 0.003, _folder_seeds),
)
