"""The noise process of a diffusers folder, from the settings of its scheduler.

A folder's scheduler only draws pictures, but its settings are all that describes the noise with
which the model was trained. So its class must be known, and every setting valid.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import Tensor

from ..foundation.json_file import JsonError, read_object
from .denoiser import NoiseSchedule, dpm_solver
from .errors import ModelError
from .folder_check import LARGEST_SETTINGS

LATENT_DIFFUSION: dict[str, object] = {"beta_start": 0.00085, "beta_end": 0.012}
DIFFUSION: dict[str, dict[str, object]] = {
    "DDPMScheduler": {},
    "DDPMParallelScheduler": {},
    "DDIMScheduler": {},
    "DDIMParallelScheduler": {},
    "DDIMInverseScheduler": {},
    "PNDMScheduler": {},
    "LMSDiscreteScheduler": {},
    "EulerDiscreteScheduler": {},
    "EulerAncestralDiscreteScheduler": {},
    "HeunDiscreteScheduler": LATENT_DIFFUSION,
    "KDPM2DiscreteScheduler": LATENT_DIFFUSION,
    "KDPM2AncestralDiscreteScheduler": LATENT_DIFFUSION,
    "DEISMultistepScheduler": {},
    "DPMSolverMultistepScheduler": {},
    "DPMSolverSinglestepScheduler": {},
    "DPMSolverSDEScheduler": LATENT_DIFFUSION,
    "UniPCMultistepScheduler": {},
    "SASolverScheduler": {},
}
"""Schedulers with the noise of DDPM (Ho et al. 2020), and their defaults that differ from it.
Those of distilled models (LCM, TCD) are not among them: such a model has another target."""
FLOW = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
FLOW_SETTINGS = ("use_flow_sigmas", "use_dynamic_shifting")  # of DDPM's schedulers
FLOW_TIMESTEPS = 1000
MOST_TIMESTEPS = 100_000


def read_scheduler(folder: Path, index: dict[str, Any]) -> tuple[NoiseSchedule, dict[str, object]]:
    """The noise schedule of a model that adds noise as DDPM does, and the settings of its sampler.

    Raises:
        ModelError: another noise process, or settings that are not valid.
    """
    from diffusers import DDPMScheduler

    own = _settings(folder, index, tuple(DIFFUSION))
    config = {**DIFFUSION[index["scheduler"][-1]], **own}
    name = f"model: {folder.name}/scheduler/scheduler_config.json"
    if any(config.get(setting) for setting in FLOW_SETTINGS):
        raise ModelError(f"{name} is for flow matching, which its denoiser does not use")
    # diffusers uses this setting with velocity prediction alone.
    is_velocity = config.get("prediction_type") == "v_prediction"
    if is_velocity and config.get("timestep_type") == "continuous":
        raise ModelError(
            f"{name}: timestep_type 'continuous' means the noise of EDM, which is not supported; "
            "choose another model"
        )
    count = config.get("num_train_timesteps", 1000)
    if not isinstance(count, int) or not 1 < count <= MOST_TIMESTEPS:
        raise ModelError(
            f"{name}: num_train_timesteps must be a whole number from 2 to {MOST_TIMESTEPS}, "
            f"got {count!r}; 1000 is usual"
        )
    if config.get("predict_epsilon") is False:  # the name of this setting before diffusers 0.11
        config.setdefault("prediction_type", "sample")
    try:
        scheduler: Any = DDPMScheduler.from_config(config)
        full = dict(scheduler.config)
        schedule = NoiseSchedule(scheduler.alphas_cumprod, str(full["prediction_type"]))
        dpm_solver(full)
    except (ValueError, TypeError, RuntimeError, NotImplementedError) as error:
        raise ModelError(f"{name} is not valid: {error}") from error
    if len(schedule.alphas_cumprod) != count:
        raise ModelError(
            f"{name}: trained_betas must contain {count} values, as many as num_train_timesteps, "
            f"got {len(schedule.alphas_cumprod)}"
        )
    if not _decreases(schedule.alphas_cumprod):
        raise ModelError(
            f"{name}: the betas must be between 0 and 1, got those of beta_start "
            f"{full['beta_start']!r}, beta_end {full['beta_end']!r} and trained_betas "
            f"{full['trained_betas'] and full['trained_betas'][:3]}"
        )
    if full["rescale_betas_zero_snr"] and schedule.prediction_type == "epsilon":
        raise ModelError(
            f"{name}: with rescale_betas_zero_snr the last timestep is pure noise, where a "
            "prediction of noise (prediction_type 'epsilon') describes no picture; set the one "
            "that the model was not trained with to false or to 'v_prediction'"
        )
    return schedule, full


def read_flow_scheduler(folder: Path, index: dict[str, Any]) -> dict[str, Any]:
    """The settings of the scheduler of a model that is trained with flow matching.

    Raises:
        ModelError: another noise process, or settings that are not valid.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    config = _settings(folder, index, FLOW)
    name = f"model: {folder.name}/scheduler/scheduler_config.json"
    if config.get("num_train_timesteps", FLOW_TIMESTEPS) != FLOW_TIMESTEPS:
        raise ModelError(
            f"{name}: num_train_timesteps must be {FLOW_TIMESTEPS}, "
            f"got {config['num_train_timesteps']!r}"
        )
    if config.get("invert_sigmas"):
        raise ModelError(f"{name}: invert_sigmas must be false, got true; such noise is unknown")
    for setting in ("shift", "base_shift", "max_shift"):
        value = config.get(setting, 1.0)
        if not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise ModelError(f"{name}: {setting} must be a positive number, got {value!r}")
    small, large = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    if not isinstance(small, int) or not isinstance(large, int) or not 0 < small < large:
        raise ModelError(
            f"{name}: base_image_seq_len and max_image_seq_len must be whole numbers above 0, the "
            f"first below the second, got {small!r} and {large!r}"
        )
    end = config.get("shift_terminal")
    if end is not None and not (isinstance(end, (int, float)) and 0 <= end < 1):
        raise ModelError(f"{name}: shift_terminal must be null or from 0 to below 1, got {end!r}")
    try:
        # A sampler that adds noise would draw other pictures from the same seed.
        scheduler: Any = FlowMatchEulerDiscreteScheduler.from_config(
            {**config, "stochastic_sampling": False}
        )
    except (ValueError, TypeError, RuntimeError, ImportError) as error:
        raise ModelError(f"{name} is not valid: {error}") from error
    return dict(scheduler.config)


def check_class(
    folder: Path, index: dict[str, Any], name: str, config: dict[str, Any], choices: tuple[str, ...]
) -> None:
    """Require that ``model_index.json`` and the component's own settings name a known class.

    Raises:
        ModelError: one of them names another class.
    """
    for class_name in (index[name][-1], config.get("_class_name", choices[0])):
        if class_name not in choices:
            more = ", …" if len(choices) > 3 else ""
            raise ModelError(
                f"model: the {name} of {folder.name!r} must be {', '.join(choices[:3])}{more}, "
                f"got {class_name!r}; this model works in another way, so choose another one"
            )


def read_settings(folder: Path, file: str) -> dict[str, Any]:
    """The settings of a component.

    Raises:
        ModelError: the file is missing, or not a JSON object.
    """
    try:
        return read_object(folder / file, LARGEST_SETTINGS)
    except JsonError as error:
        raise ModelError(f"model: {folder.name}/{file} {error}") from None
    except OSError as error:
        raise ModelError(f"model: {folder.name}/{file} cannot be loaded: {error}") from None


def _settings(folder: Path, index: dict[str, Any], choices: tuple[str, ...]) -> dict[str, Any]:
    config = read_settings(folder, "scheduler/scheduler_config.json")
    check_class(folder, index, "scheduler", config, choices)
    return config


def _decreases(alphas: Tensor) -> bool:
    """Whether each timestep adds noise, down to 0 at most."""
    return bool((alphas.diff() < 0).all() and alphas[0] < 1 and alphas[-1] >= 0)
