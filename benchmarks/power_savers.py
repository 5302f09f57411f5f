"""Power failures during the saves of models and reports, by the product's own savers.

The models have random weights and a few layers. What a saver does with a file does not depend on
their architecture, so a class-conditional U-Net also stands in for that of Stable Diffusion.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from benchmarks.power_save import Save
from unlearn_core.foundation.leftovers import clean_leftovers
from unlearn_core.foundation.own_files import MANIFEST
from unlearn_core.foundation.own_folder import OwnFolder
from unlearn_core.job.job import REPORT, TENSORS, Job
from unlearn_core.job.settings_file import read_settings
from unlearn_core.models.class_conditional import ClassConditionalHandle
from unlearn_core.models.families import UNET
from unlearn_core.models.load import load_model
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.prompts.concept import ForgetConcept
from unlearn_core.prompts.diversify import diversify
from unlearn_core.prompts.pairs import PromptPairs
from unlearn_core.saving.diffusers_folder import save_diffusers_folder
from unlearn_core.saving.lora import save_lora
from unlearn_core.saving.run_state import write_unlearned
from unlearn_core.saving.single_file import save_single_file
from unlearn_core.unlearning.results import UnlearnedModel
from unlearn_core.unlearning.settings import UnlearnSettings

ROOM = tempfile.TemporaryDirectory(prefix="power-")  # for models, until the process ends
MODEL, FILE = "model", "model.safetensors"
TIME = "time_embedding.linear_1.weight"
ATTENTION = "down_blocks.1.attentions.0.to_q.weight"
CLASSES = ("cat", "dog", "house")
# Tensors of a single file of Stable Diffusion 1.x, which has no more blocks than needed.
SHAPES = {
    "input_blocks.0.0.weight": (8, 4, 3, 3),
    "input_blocks.0.0.bias": (8,),
    "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (8, 768),
    "time_embed.0.weight": (32, 8),
    "time_embed.0.bias": (32,),
    "time_embed.2.weight": (32, 32),
    "time_embed.2.bias": (32,),
    "out.0.weight": (8,),
    "out.0.bias": (8,),
    "out.2.weight": (4, 8, 3, 3),
    "out.2.bias": (4,),
}
JOB = {
    "concept": {"name": "cat", "kind": "class", "replacements": ["dog", "house"]},
    "prompts": {
        "templates": ["{wording} {concept}"],
        "dimensions": {"wording": ["a", "one"]},
        "train_count": 2,
        "test_count": 2,
    },
}


class RealSave(Save):
    """A save by one of the product's savers. The version in a folder is that with equal content.

    Args:
        write: saves a version into a folder.
        paths: what it writes, relative to the folder.
        is_quick: see ``Save``.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[Path, int], None],
        *paths: str,
        over_older: bool = True,
        is_quick: bool = True,
    ) -> None:
        self.name, self.write, self.paths = name, write, paths
        self.over_older, self.is_quick = over_older, is_quick
        self._contents: dict[int, dict[str, str]] = {}

    def save(self, folder: Path, version: int) -> None:
        self.write(folder, version)
        self._contents[version] = content(folder)

    def version(self, folder: Path) -> int | None:
        for path in self.paths:
            clean_leftovers(folder / path)
        present = content(folder)
        if not present and not self.over_older:
            return None
        for version, expected in self._contents.items():
            if present == expected:
                return version
        raise ValueError("neither version")


class JobReport(Save):
    name = "report of a job over an older one"

    def save(self, folder: Path, version: int) -> None:
        file = Path(ROOM.name, "settings.json")
        file.write_text(json.dumps({"model": str(class_conditional()), **JOB}), encoding="utf-8")
        Job(read_settings(file), folder)._write_report({"version": version})

    def version(self, folder: Path) -> int | None:
        clean_leftovers(folder / MANIFEST)
        OwnFolder(folder).refuse_others([REPORT], "out")  # it is still known as our own
        return json.loads((folder / REPORT).read_text(encoding="utf-8"))["version"]


def content(folder: Path) -> dict[str, str]:
    """The files in a folder with a hash of each; of a safetensors file, of its tensors alone,
    because its metadata contain the time.

    Raises:
        ValueError: a file is damaged.
    """
    hashes = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        if file.is_dir() or any(part.startswith(".") for part in name.parts):
            continue
        digest = hashlib.sha256()
        if file.suffix == ".safetensors":
            try:
                tensors = load_file(file)
            except SafetensorError as error:
                raise ValueError(f"{name} ({error})") from None
            for key in sorted(tensors):
                digest.update(key.encode() + tensors[key].contiguous().numpy().tobytes())
        else:
            digest.update(file.read_bytes())
        hashes[name.as_posix()] = digest.hexdigest()
    return hashes


@cache
def class_conditional() -> Path:
    """The folder of a small model of pictures with 8 x 8 pixels."""
    folder = Path(ROOM.name, "class-conditional")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DModel(
            sample_size=8, in_channels=3, out_channels=3, layers_per_block=1,
            block_out_channels=(8, 16), norm_num_groups=4, attention_head_dim=4,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"), num_class_embeds=len(CLASSES),
        )  # fmt: skip
    unet.save_pretrained(folder / "unet")
    DDPMScheduler().save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "ClassConditionalPipeline",
        "unet": ["diffusers", "UNet2DModel"],
        "scheduler": ["diffusers", "DDPMScheduler"],
        "id2label": dict(enumerate(CLASSES)),
    }
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


@cache
def single_file() -> Path:
    file = Path(ROOM.name, "single-file.safetensors")
    tensors = {UNET + name: torch.zeros(shape) for name, shape in SHAPES.items()}
    save_file({name: tensor.half() for name, tensor in tensors.items()}, file)
    return file


@cache
def pairs() -> PromptPairs:
    concept = ForgetConcept("cat", "class", replacements=("dog", "house"))
    words = {"wording": ("a", "one")}
    return diversify(concept, ["{wording} {concept}"], words, train_count=1, test_count=1)


@cache
def loaded() -> ModelHandle:
    return load_model(class_conditional())


def unlearned(version: int, changed: str = TIME) -> UnlearnedModel:
    """A result that differs from its base, and from that of the other version, in one tensor."""
    model = loaded().trainable_copy([changed])
    with torch.no_grad():
        dict(model.named_parameters())[changed].add_(0.25 * version)
    return UnlearnedModel(model, loaded(), pairs(), UnlearnSettings(), ())


def from_single_file(result: UnlearnedModel) -> UnlearnedModel:
    """The same result, as if its base had been loaded from the single file."""

    def moved(model: ModelHandle) -> ModelHandle:
        assert isinstance(model, ClassConditionalHandle)
        return replace(model, info=replace(model.info, family="sd1", source=single_file()))

    return replace(result, model=moved(result.model), base=moved(result.base))


def _checkpoint(folder: Path, version: int) -> None:
    save_single_file(from_single_file(unlearned(version)), folder / FILE, overwrite=True)


def _lora(folder: Path, version: int) -> None:
    result = from_single_file(unlearned(version, ATTENTION))
    save_lora(result, folder / FILE, rank=2, overwrite=True)


def _folder(folder: Path, version: int) -> None:
    save_diffusers_folder(unlearned(version), folder / MODEL, overwrite=True)


def _result(folder: Path, version: int) -> None:
    write_unlearned(unlearned(version), folder / TENSORS, {"version": version})


REAL_SAVES: tuple[Save, ...] = (
    RealSave("checkpoint", _checkpoint, FILE, over_older=False),
    RealSave("checkpoint over an older one", _checkpoint, FILE),
    RealSave("LoRA", _lora, FILE, over_older=False),
    RealSave("LoRA over an older one", _lora, FILE),
    RealSave("diffusers folder", _folder, MODEL, over_older=False, is_quick=False),
    RealSave("diffusers folder over an older one", _folder, MODEL, is_quick=False),
    RealSave("unlearned model of a job over an older one", _result, TENSORS),
    JobReport(),
)
