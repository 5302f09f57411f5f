"""Fixtures of the core's tests: tiny models of real architectures, prompts and training sets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from unlearn_core.dataset.rows import TrainingSets
from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.dataset.training_sets import make_training_sets
from unlearn_core.models.load import load_model
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.prompts.concept import ForgetConcept
from unlearn_core.prompts.diversify import diversify
from unlearn_core.prompts.pairs import PromptPairs

from .tiny_models import (
    learned_variance,
    write_class_conditional,
    write_dit,
    write_flux,
    write_stable_diffusion,
    write_stable_diffusion_3,
    write_stable_diffusion_xl,
)

# A slow machine must not fail a test, and a failure must be reproducible.
settings.register_profile(
    "core",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("core")

# Such small tensors gain nothing from threads, which wait for each other on a busy machine.
torch.set_num_threads(1)

FAST = GenerationSettings(steps=2, batch_size=4)
FAMILIES = (
    "sd",
    "sd-v",
    "sdxl",
    "class",
    "class-grey",
    "class-variance",
    "dit",
    "dit-variance",
    "sd3",
    "sd3-t5",
    "flux",
    "schnell",
)


@pytest.fixture(scope="session")
def sd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion. Shared by all tests: do not write into it."""
    return write_stable_diffusion(tmp_path_factory.mktemp("models") / "tiny-sd")


@pytest.fixture(scope="session")
def sd_v_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights with velocity prediction."""
    return write_stable_diffusion(tmp_path_factory.mktemp("models") / "tiny-v", "v_prediction")


@pytest.fixture(scope="session")
def sdxl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion XL."""
    return write_stable_diffusion_xl(tmp_path_factory.mktemp("models") / "tiny-xl")


@pytest.fixture(scope="session")
def dit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny diffusion transformer with class labels."""
    return write_dit(tmp_path_factory.mktemp("models") / "tiny-dit")


@pytest.fixture(scope="session")
def class_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny class-conditional model with three channels."""
    return write_class_conditional(tmp_path_factory.mktemp("models") / "tiny-class")


@pytest.fixture(scope="session")
def grey_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with one channel, like MNIST models, and with sample prediction."""
    folder = tmp_path_factory.mktemp("models") / "tiny-grey"
    return write_class_conditional(folder, channels=1, prediction_type="sample")


@pytest.fixture(scope="session")
def class_variance_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny class-conditional model that also predicts its variance."""
    folder = tmp_path_factory.mktemp("models") / "tiny-class-variance"
    return write_class_conditional(folder, scheduler=learned_variance(), predicted=6)


@pytest.fixture(scope="session")
def dit_variance_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny diffusion transformer with learned variance in its scheduler."""
    return write_dit(tmp_path_factory.mktemp("models") / "tiny-dit-variance", learned_variance())


@pytest.fixture(scope="session")
def sd3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion 3 without T5."""
    return write_stable_diffusion_3(tmp_path_factory.mktemp("models") / "tiny-sd3", t5=False)


@pytest.fixture(scope="session")
def sd3_t5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion 3 with T5."""
    return write_stable_diffusion_3(tmp_path_factory.mktemp("models") / "tiny-sd3-t5", t5=True)


@pytest.fixture(scope="session")
def flux_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Flux.1-dev."""
    return write_flux(tmp_path_factory.mktemp("models") / "tiny-flux")


@pytest.fixture(scope="session")
def schnell_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Flux.1-schnell, which takes no guidance."""
    return write_flux(tmp_path_factory.mktemp("models") / "tiny-schnell", guidance=False)


@pytest.fixture(scope="session")
def sd_model(sd_folder: Path) -> ModelHandle:
    return load_model(sd_folder)


@pytest.fixture(scope="session", params=FAMILIES)
def model(
    request: pytest.FixtureRequest,
    sd_folder: Path,
    sd_v_folder: Path,
    sdxl_folder: Path,
    class_folder: Path,
    grey_folder: Path,
    class_variance_folder: Path,
    dit_folder: Path,
    dit_variance_folder: Path,
    sd3_folder: Path,
    sd3_t5_folder: Path,
    flux_folder: Path,
    schnell_folder: Path,
) -> ModelHandle:
    """Every model family in turn."""
    folders = (
        sd_folder,
        sd_v_folder,
        sdxl_folder,
        class_folder,
        grey_folder,
        class_variance_folder,
        dit_folder,
        dit_variance_folder,
        sd3_folder,
        sd3_t5_folder,
        flux_folder,
        schnell_folder,
    )
    return load_model(dict(zip(FAMILIES, folders, strict=True))[request.param])


@pytest.fixture(scope="session")
def pairs() -> PromptPairs:
    """Prompts for every family: the class names are also ordinary words."""
    return diversify(
        ForgetConcept("cat", "object", replacements=("dog", "house")),
        ["a {concept} {place}"],
        {"place": ("indoors", "outdoors", "at night", "by the sea")},
        train_count=6,
        test_count=2,
    )


@pytest.fixture(scope="session")
def sets(sd_model: ModelHandle, pairs: PromptPairs) -> TrainingSets:
    return make_training_sets(sd_model, pairs, FAST)
