"""Settings of a folder's scheduler and autoencoder that change what is predicted, or how latents
are scaled: each is used as diffusers uses it, or refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from unlearn_core.models.flow import FlowHandle, FlowSchedule
from unlearn_core.models.load import ModelError, load_model
from unlearn_core.models.noise_settings import DIFFUSION, read_scheduler
from unlearn_core.models.protocol import ModelHandle

Edit = Callable[..., Path]


def update(file: Path, **changes: object) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    content.update(changes)
    file.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def edited(tmp_path: Path) -> Edit:
    """A function that copies a folder and changes the settings of one component."""

    def edit(folder: Path, component: str, **changes: object) -> Path:
        copy = Path(shutil.copytree(folder, tmp_path / folder.name, dirs_exist_ok=True))
        name = "scheduler_config.json" if component == "scheduler" else "config.json"
        update(copy / component / name, **changes)
        return copy

    return edit


def alphas(folder: Path) -> torch.Tensor:
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    return read_scheduler(folder, index)[0].alphas_cumprod


def write_scheduler(folder: Path, name: str, config: dict[str, object]) -> None:
    (folder / "scheduler").mkdir(parents=True)
    index = {"scheduler": ["diffusers", name]}
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize("name", DIFFUSION)
def test_the_noise_is_that_of_the_scheduler_in_the_folder(tmp_path: Path, name: str) -> None:
    """A short settings file means the defaults of its own class, which differ."""
    if name == "DPMSolverSDEScheduler":
        own: Any = diffusers.HeunDiscreteScheduler()  # the same defaults; this needs no torchsde
    else:
        own = getattr(diffusers, name)()
    write_scheduler(tmp_path, name, {"_class_name": name})
    torch.testing.assert_close(alphas(tmp_path), own.alphas_cumprod)


@pytest.mark.parametrize(
    "settings",
    [
        {"beta_schedule": "linear", "beta_start": 0.001, "beta_end": 0.01},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.014},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"num_train_timesteps": 500},
        {"trained_betas": [0.01, 0.02, 0.03], "num_train_timesteps": 3},
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    ],
)
def test_each_setting_of_the_noise_is_used(tmp_path: Path, settings: dict[str, Any]) -> None:
    own: Any = diffusers.DDIMScheduler(**settings)
    write_scheduler(tmp_path, "DDIMScheduler", {"_class_name": "DDIMScheduler", **settings})
    torch.testing.assert_close(alphas(tmp_path), own.alphas_cumprod)


def test_zero_terminal_snr_is_trained_and_sampled(sd_v_folder: Path, edited: Edit) -> None:
    """As NoobAI-XL in a folder: the last timestep is noise alone, and pictures start there."""
    folder = edited(sd_v_folder, "scheduler", rescale_betas_zero_snr=True)
    model = load_model(folder)
    latents, noise = torch.randn(2, 1, *model.latent_shape)
    last = model.times(torch.ones(1))
    assert torch.equal(model.add_noise(latents, noise, last), noise)
    assert torch.equal(model.schedule.target(latents, noise, last), -latents)  # type: ignore[attr-defined]
    pipeline: Any = diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(
        pipeline.scheduler.config, timestep_spacing="linspace", final_sigmas_type="zero"
    )
    start = torch.randn(model.latent_shape, generator=torch.Generator().manual_seed(3))[None]
    expected = pipeline(
        ["a cat"], latents=start, num_inference_steps=4, guidance_scale=4.0, output_type="latent",
        height=16, width=16,
    ).images  # fmt: skip
    drawn = model.sample(["a cat"], [3], steps=4, guidance_scale=4.0)
    torch.testing.assert_close(drawn, expected, rtol=1e-3, atol=1e-4)


def test_settings_of_a_sampler_do_not_matter(
    sd_folder: Path, sd_model: ModelHandle, edited: Edit
) -> None:
    """They divide the noise process into other steps, or step differently. Pictures are drawn with
    DPM-Solver++ all the same."""
    other: dict[str, Any] = {
        "timestep_spacing": "trailing", "steps_offset": 3, "use_karras_sigmas": True,
        "use_exponential_sigmas": True, "use_beta_sigmas": True, "use_lu_lambdas": True,
        "final_sigmas_type": "sigma_min", "sigma_min": 0.1, "sigma_max": 5.0,
        "solver_order": 1, "solver_type": "heun", "algorithm_type": "sde-dpmsolver++",
        "euler_at_final": True, "lower_order_final": False, "lambda_min_clipped": -2,
        "thresholding": True, "dynamic_thresholding_ratio": 0.5, "sample_max_value": 0.1,
        "clip_sample": True, "set_alpha_to_one": True, "variance_type": "fixed_small",
        "interpolation_type": "log_linear", "timestep_type": "continuous",
    }  # fmt: skip
    model = load_model(edited(sd_folder, "scheduler", **other))
    one, same = (m.sample(["a cat"], [3], steps=4, guidance_scale=3.0) for m in (model, sd_model))
    assert torch.equal(one, same)
    latents, noise = torch.randn(2, 1, *model.latent_shape)
    t = model.times(torch.tensor([0.7]))
    assert torch.equal(model.add_noise(latents, noise, t), sd_model.add_noise(latents, noise, t))


@pytest.mark.parametrize(
    "name",
    [
        "FlowMatchEulerDiscreteScheduler", "EDMEulerScheduler", "EDMDPMSolverMultistepScheduler",
        "LCMScheduler", "TCDScheduler", "CMStochasticIterativeScheduler", "UnCLIPScheduler",
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["model_index.json", "scheduler_config.json"])
def test_a_scheduler_of_another_noise_process(
    sd_folder: Path, edited: Edit, name: str, place: str
) -> None:
    """In either place: diffusers reads the class from the first."""
    folder = edited(sd_folder, "scheduler")
    if place == "model_index.json":
        update(folder / place, scheduler=["diffusers", name])
    else:
        update(folder / "scheduler" / place, _class_name=name)
    with pytest.raises(
        ModelError, match=f"the scheduler of 'tiny-sd' must be DDPM.*, got '{name}'; .* choose"
    ):
        load_model(folder)


def test_a_flow_model_with_a_scheduler_of_diffusion(sd3_folder: Path, edited: Edit) -> None:
    folder = edited(sd3_folder, "scheduler", _class_name="DDIMScheduler")
    with pytest.raises(ModelError, match="must be FlowMatchEuler.*, got 'DDIMScheduler'"):
        load_model(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prediction_type": "flow_prediction"}, "got 'flow_prediction'"),
        ({"use_flow_sigmas": True}, "for flow matching"),
        ({"num_train_timesteps": 0}, "num_train_timesteps must be a whole number from 2"),
        ({"num_train_timesteps": 999.5}, "num_train_timesteps must be a whole number from 2"),
        ({"num_train_timesteps": 10**8}, "num_train_timesteps must be a whole number from 2"),
        ({"trained_betas": [0.1, 0.2]}, "trained_betas must contain 1000 values"),
        ({"trained_betas": [-0.1] * 1000}, "the betas must be between 0 and 1, got those of"),
        ({"beta_end": 3}, "the betas must be between 0 and 1"),
        ({"beta_start": "small"}, "is not valid"),
        ({"beta_schedule": "sigmoid"}, "sigmoid is not implemented"),
        ({"rescale_betas_zero_snr": True}, "prediction_type 'epsilon'.*describes no picture; set"),
        (
            {"timestep_type": "continuous", "prediction_type": "v_prediction"},
            "timestep_type 'continuous' means the noise of EDM",
        ),
    ],
)
def test_settings_that_cannot_be_used(
    sd_folder: Path, edited: Edit, changes: dict[str, object], message: str
) -> None:
    folder = edited(sd_folder, "scheduler", **changes)
    with pytest.raises(ModelError, match=f"tiny-sd/scheduler/scheduler_config.json.*{message}"):
        load_model(folder)


def test_the_former_name_of_sample_prediction(class_folder: Path, edited: Edit) -> None:
    file = edited(class_folder, "scheduler", predict_epsilon=False) / "scheduler"
    content = json.loads((file / "scheduler_config.json").read_text(encoding="utf-8"))
    del content["prediction_type"]
    (file / "scheduler_config.json").write_text(json.dumps(content), encoding="utf-8")
    assert load_model(file.parent).info.prediction == "sample"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_train_timesteps": 500}, "num_train_timesteps must be 1000, got 500"),
        ({"invert_sigmas": True}, "invert_sigmas must be false"),
        ({"shift": -1}, "shift must be a positive number, got -1"),
        ({"time_shift_type": "cubic"}, "is not valid"),
        ({"shift_terminal": 2}, "shift_terminal must be null or from 0 to below 1, got 2"),
        ({"max_image_seq_len": 256}, "the first below the second, got 256 and 256"),
        ({"base_image_seq_len": "small"}, "must be whole numbers above 0.*got 'small' and 4096"),
    ],
)
def test_settings_of_flow_matching_that_cannot_be_used(
    sd3_folder: Path, edited: Edit, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ModelError, match=f"scheduler_config.json.*{message}"):
        load_model(edited(sd3_folder, "scheduler", **changes))


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_training_uses_the_shift_of_the_sampler(flux_folder: Path, edited: Edit, kind: str) -> None:
    model = load_model(edited(flux_folder, "scheduler", time_shift_type=kind))
    assert isinstance(model, FlowHandle)
    assert isinstance(model.schedule, FlowSchedule)
    own: Any = diffusers.FlowMatchEulerDiscreteScheduler.from_config(model.scheduler_config)
    mu = model.sampler_options(4, 16)["mu"]
    t = np.array([0.2, 0.5, 0.9])
    uniform = FlowSchedule(model.schedule.shift, logit_normal=False)
    expected = torch.as_tensor(own.time_shift(mu, 1.0, t)).float()
    torch.testing.assert_close(uniform.times(torch.tensor(t).float()), expected)


def test_a_sampler_that_adds_noise_is_switched_off(sd3_folder: Path, edited: Edit) -> None:
    """Otherwise the same seed would draw another picture each time."""
    model = load_model(edited(sd3_folder, "scheduler", stochastic_sampling=True))
    first, second = (model.sample(["a cat"], [1], steps=2, guidance_scale=1.0) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    "name", ["AutoencoderTiny", "AsymmetricAutoencoderKL", "ConsistencyDecoderVAE"]
)
@pytest.mark.parametrize("place", ["model_index.json", "vae/config.json"])
def test_another_class_of_autoencoder(sd_folder: Path, edited: Edit, name: str, place: str) -> None:
    folder = edited(sd_folder, "vae")
    changes = {"vae": ["diffusers", name]} if "index" in place else {"_class_name": name}
    update(folder / place, **changes)
    with pytest.raises(ModelError, match=f"the vae of 'tiny-sd' must be Auto.*, got '{name}'"):
        load_model(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scaling_factor": 0}, "scaling_factor must be a positive number, got 0"),
        ({"scaling_factor": float("nan")}, "scaling_factor must be a positive number, got nan"),
        ({"scaling_factor": None}, "scaling_factor must be a positive number, got None"),
        ({"shift_factor": float("inf")}, "shift_factor must be a number or null, got inf"),
        ({"latents_mean": [0, 0, 0, 0]}, "latents_std must be 4 positive numbers, got None"),
        (
            {"latents_mean": [0.0, 0.0, 0.0], "latents_std": [1.0, 1.0, 1.0, 1.0]},
            "latents_mean must be 4 numbers",
        ),
        (
            {"latents_mean": [0, 0, 0, 0], "latents_std": [1, 1, 0, 1]},
            "latents_std must be 4 positive numbers",
        ),
    ],
)
def test_latents_of_no_scale(
    sd_folder: Path, edited: Edit, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ModelError, match=rf"tiny-sd/vae/config.json: {message}"):
        load_model(edited(sd_folder, "vae", **changes))


def test_a_scale_of_latents_that_the_pipeline_does_not_read(
    sd_folder: Path, sdxl_folder: Path, sd3_folder: Path, edited: Edit
) -> None:
    """With it, own pictures would be encoded differently than the model's are decoded."""
    statistics = {"latents_mean": [1.0] * 4, "latents_std": [2.0] * 4}
    for folder, changes in (
        (sd_folder, {"shift_factor": 0.1}),
        (sd_folder, statistics),
        (sdxl_folder, {"shift_factor": 0.1}),
        (sd3_folder, statistics),
    ):
        with pytest.raises(ModelError, match=f"{next(iter(changes))} must be null for this kind"):
            load_model(edited(folder, "vae", **changes))


def test_latents_of_another_number_of_channels(sd_folder: Path, edited: Edit) -> None:
    """Those of Flux, for example, in place of Stable Diffusion's."""
    folder = edited(sd_folder, "vae", latent_channels=16)
    kind: Any = diffusers.AutoencoderKL
    vae = kind.from_config(kind.load_config(folder / "vae"))
    vae.save_pretrained(folder / "vae")
    with pytest.raises(ModelError, match="latent_channels must be 4, as in the denoiser, got 16"):
        load_model(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"scaling_factor": 0.5},
        {
            "scaling_factor": 0.5,
            "latents_mean": [-1.6, 1.8, 0.2, 0.1],
            "latents_std": [8.4, 5.9, 6.5, 4.1],
        },
    ],
)
def test_latents_are_scaled_as_by_the_pipeline(
    sdxl_folder: Path, edited: Edit, changes: dict[str, object]
) -> None:
    folder = edited(sdxl_folder, "vae", **changes)
    model = load_model(folder)
    latents = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    pipeline: Any = StableDiffusionXLPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler.set_timesteps = lambda *_, **__: None
    pipeline.scheduler.timesteps = torch.zeros(0, dtype=torch.long)
    expected = pipeline(
        ["a", "b"], latents=latents, num_inference_steps=1, height=16, width=16, output_type="np"
    ).images
    np.testing.assert_allclose(
        model.decode_latents(latents).permute(0, 2, 3, 1).numpy(), expected, atol=1e-5
    )
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        mean = pipeline.vae.encode(images * 2 - 1).latent_dist.mean
        encoded = model.encode_images(images)
        torch.testing.assert_close(
            model.decode_latents(encoded),
            pipeline.vae.decode(mean).sample.add(1).div(2).clamp(0, 1),
        )


def test_a_denoiser_with_the_guidance_as_an_input(sd_folder: Path, edited: Edit) -> None:
    """As in latent consistency models."""
    folder = edited(sd_folder, "unet", time_cond_proj_dim=8)
    kind: Any = diffusers.UNet2DConditionModel
    unet = kind.from_config(kind.load_config(folder / "unet"))
    unet.save_pretrained(folder / "unet")
    with pytest.raises(ModelError, match="has the guidance scale as an input.*choose the model"):
        load_model(folder)
