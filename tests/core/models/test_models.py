"""One conformance suite for all model families, compared with diffusers' own classes."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from torch import Tensor, nn

from unlearn_core.foundation.progress import Progress
from unlearn_core.models import autoencoder, denoiser
from unlearn_core.models.flux import TRAINING_GUIDANCE, FluxHandle
from unlearn_core.models.folder import folder_fingerprint, read_index, weight_files
from unlearn_core.models.load import load_model
from unlearn_core.models.options import LoadOptions
from unlearn_core.models.protocol import Conditioning, ModelHandle
from unlearn_core.models.weights import move, tensors_of
from unlearn_core.unlearning.scopes import parameter_names

from ..embeddings import embeddings
from ..tiny_models import write_stable_diffusion
from ..watching import StopError, Stopping

PROMPTS = ("a cat indoors", "the dog", "house by the sea")


def some_parameters(model: ModelHandle) -> list[str]:
    """Every third parameter, so that the same layers have owned and shared ones."""
    return [name for name, _ in model.named_parameters()][::3]


def own_scheduler(model: ModelHandle) -> Any:
    """diffusers' training scheduler of the folder; its methods are loosely typed."""
    assert model.info.source is not None
    return DDPMScheduler.from_pretrained(model.info.source / "scheduler")


def noised(model: ModelHandle, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Noisy latents by diffusers; of flow matching, the point between latents and noise."""
    if model.info.prediction == "flow":
        return torch.lerp(latents, noise, t.view(-1, 1, 1, 1))
    return own_scheduler(model).add_noise(latents, noise, t)


def training_prediction(
    model: ModelHandle, latents_t: Tensor, encoded: Conditioning, t: Tensor
) -> Tensor:
    """The prediction that training compares with the target; Flux's without its guidance."""
    if isinstance(model, FluxHandle):
        return model._velocity(latents_t, encoded, t, TRAINING_GUIDANCE)
    return model.predict(latents_t, encoded, t)


def own_pipeline(folder: Path) -> Any:
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def snapshot(model: ModelHandle) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_unchanged(model: ModelHandle, before: dict[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]), name


def random_batch(model: ModelHandle, size: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, noise, and timesteps that include both ends of the schedule."""
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, size, *model.latent_shape, generator=generator)
    return latents, noise, model.times(torch.linspace(0, 1, size))


def draw(model: ModelHandle, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
    return model.sample(prompts, seeds, steps=3, guidance_scale=4.0)


def test_it_is_a_model_handle(model: ModelHandle) -> None:
    assert isinstance(model, ModelHandle)


def test_model_info(model: ModelHandle) -> None:
    info = model.info
    assert info.source is not None
    assert info.family in ("stable-diffusion", "class-conditional", "dit", "sd3", "flux")
    denoiser = "transformer" if info.family in ("dit", "sd3", "flux") else "unet"
    assert (info.name, info.denoiser_folder) == (info.source.name, denoiser)
    assert info.image_size == (8 if info.family == "class-conditional" else 16)
    assert len(info.fingerprint) == 64
    assert model.device == torch.device("cpu")
    times = model.times(torch.tensor([0.0, 0.5, 0.9999, 1.0]))
    if info.prediction != "flow":
        assert times.tolist() == [0, 500, 999, 999]
    else:
        assert (times.diff() >= 0).all()
        assert 0 <= times[0] < times[1] < times[3] <= 1
    names = [name for name, _ in model.named_parameters()]
    assert len(names) == len(set(names)) > 20


def test_every_weight_is_frozen_float32_out_of_training_mode(model: ModelHandle) -> None:
    for _, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32
        assert not parameter.requires_grad


def test_conditioning_has_a_row_for_each_prompt(model: ModelHandle) -> None:
    encoded = model.encode_prompts(PROMPTS)
    assert len(encoded) == 3
    assert not embeddings(encoded).values.requires_grad
    for i, prompt in enumerate(PROMPTS):
        assert torch.equal(
            embeddings(encoded[[i]]).values, embeddings(model.encode_prompts([prompt])).values
        )
    rejoined = Conditioning.cat([encoded[:1], encoded[torch.tensor([1, 2])]])
    assert torch.equal(embeddings(rejoined).values, embeddings(encoded).values)
    assert not torch.equal(embeddings(encoded).values[0], embeddings(encoded).values[1])


def test_pictures_are_encoded_and_decoded(model: ModelHandle) -> None:
    edge = model.info.image_size
    images = torch.rand(9, 3, edge, edge, generator=torch.Generator().manual_seed(0))
    latents = model.encode_images(images)
    assert latents.shape == (9, *model.latent_shape)
    assert torch.equal(latents, model.encode_images(images))
    decoded = model.decode_latents(latents)
    assert decoded.shape == images.shape
    assert decoded.device.type == "cpu"
    assert 0 <= decoded.min() <= decoded.max() <= 1
    # The decoded picture does not depend on the others in the batch.
    torch.testing.assert_close(model.decode_latents(latents[8:]), decoded[8:], atol=1e-5, rtol=0)
    # Latents far out of range still decode to a valid picture.
    extreme = model.decode_latents(1e3 * latents)
    assert 0 <= extreme.min() <= extreme.max() <= 1


def test_pixel_space_is_lossless(class_folder: Path, grey_folder: Path) -> None:
    images = torch.rand(2, 3, 8, 8)
    colour, grey = load_model(class_folder), load_model(grey_folder)
    torch.testing.assert_close(colour.decode_latents(colour.encode_images(images)), images)
    assert colour.encode_images(torch.zeros(1, 3, 8, 8)).eq(-1).all()
    assert colour.encode_images(torch.ones(1, 3, 8, 8)).eq(1).all()
    mean = images.mean(1, keepdim=True).expand_as(images)
    torch.testing.assert_close(grey.decode_latents(grey.encode_images(images)), mean)


def test_noise_is_added_as_by_the_scheduler(model: ModelHandle) -> None:
    latents, noise, t = random_batch(model)
    expected = noised(model, latents, noise, t)
    torch.testing.assert_close(model.add_noise(latents, noise, t), expected)


def test_the_error_uses_the_schedulers_target(model: ModelHandle) -> None:
    latents, noise, t = random_batch(model)
    targets = {
        "epsilon": lambda: noise,
        "v_prediction": lambda: own_scheduler(model).get_velocity(latents, noise, t),
        "sample": lambda: latents,
        "flow": lambda: noise - latents,
    }
    target = targets[model.info.prediction]()
    encoded = model.encode_prompts([PROMPTS[i % 3] for i in range(4)])
    with torch.no_grad():
        latents_t = noised(model, latents, noise, t)
        expected = (training_prediction(model, latents_t, encoded, t) - target).square()
        errors = model.denoise_error(latents, encoded, noise, t)
    assert errors.shape == latents.shape
    torch.testing.assert_close(errors, expected)


def test_the_two_targets_differ(sd_folder: Path, sd_v_folder: Path) -> None:
    """Otherwise the test above could not distinguish them: both models have the same weights."""
    errors = []
    for folder in (sd_folder, sd_v_folder):
        model = load_model(folder)
        latents, noise, t = random_batch(model)
        with torch.no_grad():
            encoded = model.encode_prompts(["a cat"] * 4)
            errors.append(model.denoise_error(latents, encoded, noise, t))
    assert not torch.allclose(*errors, rtol=0.1)


def test_the_prediction_depends_on_the_prompt(model: ModelHandle) -> None:
    latents, _, t = random_batch(model, 1)
    with torch.no_grad():
        cat, dog = (model.predict(latents, model.encode_prompts([p]), t) for p in PROMPTS[:2])
    assert not torch.allclose(cat, dog, atol=1e-6)


def test_a_seed_gives_the_same_picture_in_any_batch(model: ModelHandle) -> None:
    together = draw(model, PROMPTS, [3, 4, 5])
    assert together.shape == (3, *model.latent_shape)
    assert torch.isfinite(together).all()
    assert torch.equal(together, draw(model, PROMPTS, [3, 4, 5]))
    for i, prompt in enumerate(PROMPTS):
        alone = draw(model, [prompt], [3 + i])
        # Untrained weights give large latents; the tolerance is that of a picture.
        scale = together.std().item()
        torch.testing.assert_close(alone / scale, together[i : i + 1] / scale, rtol=0, atol=1e-4)
    assert not torch.allclose(draw(model, PROMPTS, [6, 7, 8]), together, atol=0.1)


def test_sampling_leaves_the_global_generator_alone(model: ModelHandle) -> None:
    before = torch.get_rng_state()
    draw(model, PROMPTS[:1], [0])
    assert torch.equal(torch.get_rng_state(), before)


def test_sampling_can_be_cancelled_after_every_step(model: ModelHandle) -> None:
    progress = Stopping(7)

    def sample() -> Tensor:
        return model.sample(PROMPTS[:1], [0], steps=5, guidance_scale=1.0, progress=progress)

    sample()
    assert progress.checks == 5
    with pytest.raises(StopError):
        sample()
    assert progress.checks == 7


def test_a_copy_owns_the_named_parameters_and_shares_the_rest(model: ModelHandle) -> None:
    names = some_parameters(model)
    copy = model.trainable_copy(names)
    original = dict(model.named_parameters())
    assert isinstance(copy, ModelHandle)
    assert [name for name, _ in copy.named_parameters()] == list(original)
    for name, parameter in copy.named_parameters():
        is_owned = name in names
        assert (parameter.data_ptr() != original[name].data_ptr()) is is_owned, name
        assert parameter.requires_grad is is_owned, name
        assert torch.equal(parameter, original[name]), name
    assert not any(p.requires_grad for p in original.values())


def test_gradient_checkpointing_saves_memory_and_gives_the_same_gradient(
    model: ModelHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = some_parameters(model)
    latents, noise, t = random_batch(model)
    encoded = model.encode_prompts([PROMPTS[i % 3] for i in range(4)])

    def gradient_and_memory() -> tuple[list[Tensor], int]:
        copy = model.trainable_copy(names)
        sizes: dict[int, int] = {}

        def record(tensor: Tensor) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
            loss = copy.denoise_error(latents, encoded, noise, t).mean()
        trained = [p for name, p in copy.named_parameters() if name in names]
        for tensor in model.named_parameters():
            sizes.pop(tensor[1].data_ptr(), None)
        return list(torch.autograd.grad(loss, trained)), sum(sizes.values())

    expected, memory = gradient_and_memory()
    monkeypatch.setattr(denoiser, "FULL_SIZE", 1)
    gradient, less_memory = gradient_and_memory()
    torch.testing.assert_close(gradient, expected)
    assert less_memory < 0.8 * memory


def test_training_a_copy_never_changes_the_original(model: ModelHandle) -> None:
    before = snapshot(model)
    names = some_parameters(model)
    copy = model.trainable_copy(names)
    assert copy.changed_tensors() == {}

    latents, noise, t = random_batch(model)
    encoded = copy.encode_prompts([PROMPTS[i % 3] for i in range(4)])
    trained = [p for name, p in copy.named_parameters() if name in names]
    optimizer = torch.optim.Adam(trained, lr=1e-2)
    picture = draw(model, PROMPTS, [1, 2, 3])
    copy.denoise_error(latents, encoded, noise, t).mean().backward()
    optimizer.step()

    assert_unchanged(model, before)
    assert torch.equal(draw(model, PROMPTS, [1, 2, 3]), picture)
    assert not torch.allclose(draw(copy, PROMPTS, [1, 2, 3]), picture, atol=1e-3)
    assert model.changed_tensors() == {}
    changed = copy.changed_tensors()
    # A bias before a normalization may have no gradient, so Adam may leave some unchanged.
    assert set(changed) <= set(names)
    assert len(changed) > 0.8 * len(names)
    weights = dict(copy.named_parameters())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in changed.items())


def test_a_copy_of_a_copy_is_compared_with_the_loaded_model(model: ModelHandle) -> None:
    """If two concepts are forgotten one after the other, the saved changes contain both."""
    first, second, *_ = [name for name, _ in model.named_parameters()]
    once = model.trainable_copy([first])
    with torch.no_grad():
        dict(once.named_parameters())[first].add_(1)
    twice = once.trainable_copy([second])
    with torch.no_grad():
        dict(twice.named_parameters())[second].add_(1)
    assert set(once.changed_tensors()) == {first}
    assert set(twice.changed_tensors()) == {first, second}
    assert model.changed_tensors() == {}


def test_lora_layers_start_without_effect_and_share_every_weight(model: ModelHandle) -> None:
    names = parameter_names(model, "lora")
    copy = model.lora_copy(names, 2, 1.0, seed=3)
    latents, _, t = random_batch(model)
    encoded = model.encode_prompts([PROMPTS[i % 3] for i in range(4)])
    with torch.no_grad():
        assert torch.equal(copy.predict(latents, encoded, t), model.predict(latents, encoded, t))
    assert copy.changed_tensors() == {}
    original = {p.data_ptr() for _, p in model.named_parameters()}
    added = [p for _, p in copy.named_parameters() if p.data_ptr() not in original]
    assert {id(p) for p in added} == {id(p) for _, p in copy.named_parameters() if p.requires_grad}
    assert {f"{name}.weight" for name in copy.lora_layers()} == set(names)
    with pytest.raises(ValueError, match="already has LoRA layers"):
        copy.lora_copy(names, 2, 1.0, seed=3)


def networks_in(value: object) -> Iterator[nn.Module]:
    """All networks of a handle, at any depth."""
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from networks_in(part)
    elif is_dataclass(value):
        yield from networks_in(tuple(vars(value).values()))


@pytest.mark.parametrize("lora", [False, True])
def test_shared_tensors_move_together(model: ModelHandle, lora: bool) -> None:
    assert model.info.source is not None
    model = load_model(model.info.source)  # the fixture's is shared with other tests
    if lora:
        copied = model.lora_copy(parameter_names(model, "lora"), rank=2, alpha=2.0, seed=0)
    else:
        copied = model.trainable_copy(some_parameters(model))
    trained = {id(p) for _, p in copied.named_parameters() if p.requires_grad}
    assert {id(tensor) for tensor in copied.own_tensors()} == trained

    with torch.inference_mode():  # tensors created in it cannot be trained
        move(model.own_tensors(), torch.device("meta"))
    for tensor in tensors_of(networks_in(copied)):
        assert tensor.is_meta == (id(tensor) not in trained)
        assert not tensor.is_inference()
    assert all(tensor.is_meta for tensor in tensors_of(networks_in(model)))
    assert model.device == copied.device == torch.device("meta")


def test_a_handle_reports_its_memory(sd_model: Any) -> None:
    tensors = tensors_of(networks_in(sd_model))
    assert sd_model.get_ram_usage() == sum(t.numel() * t.element_size() for t in tensors)
    name, parameter = next(iter(sd_model.named_parameters()))
    assert sd_model.trainable_copy([name]).get_ram_usage() == 4 * parameter.numel()
    assert sd_model.trainable_copy([]).get_ram_usage() == 0


def test_the_seed_determines_the_initial_lora_layers(sd_model: ModelHandle) -> None:
    names = parameter_names(sd_model, "lora")[:2]
    starts = []
    for seed in (1, 2, 1):
        torch.manual_seed(len(starts))  # the global seed must have no effect
        layers = sd_model.lora_copy(names, 2, 2.0, seed).lora_layers()
        starts.append(torch.cat([layer.down.flatten() for layer in layers.values()]))
    assert torch.equal(starts[0], starts[2])
    assert not torch.equal(starts[0], starts[1])


def test_merged_lora_layers_predict_the_same(model: ModelHandle) -> None:
    """The saved model equals the adapted one, and the factors are those of peft."""
    copy = model.lora_copy(parameter_names(model, "lora"), 2, 3.0, seed=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in copy.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    changed = copy.changed_tensors()
    merged = model.trainable_copy(list(changed))
    base = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in merged.named_parameters():
            if name in changed:
                parameter.copy_(changed[name])
                layer = copy.lora_layers()[name.removesuffix(".weight")]
                delta = 3.0 / 2 * layer.up.flatten(1) @ layer.down.flatten(1)
                expected = base[name] + delta.reshape(base[name].shape)
                torch.testing.assert_close(parameter, expected)
        latents, _, t = random_batch(model)
        encoded = model.encode_prompts([PROMPTS[i % 3] for i in range(4)])
        adapted = copy.predict(latents, encoded, t)
        torch.testing.assert_close(
            merged.predict(latents, encoded, t), adapted, rtol=1e-3, atol=1e-4
        )
    assert not torch.allclose(adapted, model.predict(latents, encoded, t), atol=1e-3)


def test_a_copy_of_an_unknown_parameter_is_refused(model: ModelHandle) -> None:
    with pytest.raises(ValueError, match="no parameter is called 'text_model'"):
        model.trainable_copy(["text_model"])


@pytest.mark.parametrize("prompt", ["a bird", "", "a cat and a dog", "caterpillar"])
def test_a_class_model_refuses_prompts_without_one_class(class_folder: Path, prompt: str) -> None:
    with pytest.raises(ValueError, match="exactly one class of 'tiny-class'") as error:
        load_model(class_folder).encode_prompts([prompt])
    assert repr(prompt) in str(error.value)


def test_a_class_name_is_recognized_in_any_case(class_folder: Path) -> None:
    encoded = load_model(class_folder).encode_prompts(["A House!", "CAT", "hot dog"])
    assert embeddings(encoded).values.tolist() == [2, 0, 1]


@pytest.mark.parametrize("width", [16, 32])
def test_xl_gives_the_pictures_of_diffusers_own_pipeline(sdxl_folder: Path, width: int) -> None:
    """This covers both text encoders, the pooled text and the sizes."""
    model = load_model(sdxl_folder)
    channels, edge, _ = model.latent_shape
    shape = (channels, edge, edge * width // 16)
    pipeline: Any = StableDiffusionXLPipeline.from_pretrained(sdxl_folder)
    pipeline.set_progress_bar_config(disable=True)
    prompts, seeds, steps = ["a cat by the sea", "dog"], [11, 12], 4
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(
        pipeline.scheduler.config,
        algorithm_type="dpmsolver++",
        final_sigmas_type="zero",
        timestep_spacing="linspace",
    )
    noise = [torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds]
    expected = pipeline(
        prompts, latents=torch.stack(noise), num_inference_steps=steps,
        guidance_scale=4.0, output_type="np", height=16, width=width,
    ).images  # fmt: skip
    latents = model.sample(prompts, seeds, steps=steps, guidance_scale=4.0, latent_shape=shape)
    pictures = model.decode_latents(latents).permute(0, 2, 3, 1).numpy()
    assert expected.std() > 0.01
    np.testing.assert_allclose(pictures, expected, atol=1e-4)


@pytest.mark.parametrize("kind", [StableDiffusionPipeline, StableDiffusionXLPipeline])
def test_mixed_precision_stays_close(
    sd_folder: Path, sdxl_folder: Path, tmp_path: Path, kind: Any
) -> None:
    """A 16-bit model: bfloat16 arithmetic, frozen weights in the file's dtype, trained ones in
    fp32."""
    source = sdxl_folder if kind is StableDiffusionXLPipeline else sd_folder
    kind.from_pretrained(source, safety_checker=None).to(torch.float16).save_pretrained(
        tmp_path / "half"
    )
    exact = load_model(tmp_path / "half")
    mixed = load_model(tmp_path / "half", options=LoadOptions(precision="mixed"))
    assert {p.dtype for _, p in mixed.named_parameters() if p.ndim > 1} == {torch.float16}
    assert mixed.trainable_copy(some_parameters(mixed)).changed_tensors() == {}
    torch.testing.assert_close(
        embeddings(mixed.encode_prompts(PROMPTS)).values,
        embeddings(exact.encode_prompts(PROMPTS)).values,
        atol=0.05, rtol=0.05,
    )  # fmt: skip
    latents, noise, t = random_batch(exact)
    encoded = exact.encode_prompts([PROMPTS[i % 3] for i in range(4)])
    with torch.no_grad():
        output, expected = (m.predict(latents, encoded, t) for m in (mixed, exact))
    assert output.dtype == torch.float32
    assert not torch.equal(output, expected)
    assert (output - expected).norm() < 0.03 * expected.norm()
    names = some_parameters(mixed)
    copy = mixed.trainable_copy(names)
    copy.denoise_error(latents, encoded, noise, t).mean().backward()
    grads = [p.grad for name, p in copy.named_parameters() if name in names]
    assert all(g is not None and g.dtype == torch.float32 for g in grads)


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
@pytest.mark.parametrize("target", ["epsilon", "v_prediction", "sample"])
def test_the_sampler_gives_the_pictures_of_diffusers_own_pipeline(
    tmp_path: Path, target: str, guidance_scale: float
) -> None:
    """``StableDiffusionPipeline`` loads the same folder and uses the same latents and solver."""
    folder = write_stable_diffusion(tmp_path / "model", target)
    model = load_model(folder)
    assert model.info.prediction == target
    prompts, seeds, steps = ["a cat by the sea", "dog"], [11, 12], 5
    pipeline = own_pipeline(folder)
    assert pipeline.scheduler.config["prediction_type"] == target
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(
        pipeline.scheduler.config,
        algorithm_type="dpmsolver++",
        solver_order=2,
        final_sigmas_type="zero",
        timestep_spacing="linspace",
    )
    noise = [
        torch.randn(model.latent_shape, generator=torch.Generator().manual_seed(s)) for s in seeds
    ]
    expected = pipeline(
        prompts, latents=torch.stack(noise), num_inference_steps=steps,
        guidance_scale=guidance_scale, output_type="np",
    ).images  # fmt: skip
    latents = model.sample(prompts, seeds, steps=steps, guidance_scale=guidance_scale)
    pictures = model.decode_latents(latents).permute(0, 2, 3, 1).numpy()
    assert expected.std() > 0.01
    np.testing.assert_allclose(pictures, expected, atol=1e-4)


@pytest.mark.parametrize("steps", [1000, 5000])
def test_more_steps_than_the_schedule_has_are_refused(sd_folder: Path, steps: int) -> None:
    """Two equal timesteps divide by zero."""
    model = load_model(sd_folder)
    with pytest.raises(ValueError, match=f"generation: {steps} steps are too many"):
        model.sample(["a cat"], [0], steps=steps, guidance_scale=1.0)


@pytest.mark.parametrize(("edge", "count"), [(64, 8), (512, 2), (1024, 1), (2048, 1)])
def test_large_pictures_are_decoded_one_by_one(edge: int, count: int) -> None:
    assert autoencoder._batch_size(edge * edge) == count


def test_pictures_are_encoded_as_by_diffusers(sd_folder: Path) -> None:
    """The autoencoder's mean, times the factor that gives latents unit variance."""
    pipeline = own_pipeline(sd_folder)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    prepared = pipeline.image_processor.preprocess(images)
    with torch.no_grad():
        mean = pipeline.vae.encode(prepared).latent_dist.mode()
    latents = load_model(sd_folder).encode_images(images)
    torch.testing.assert_close(latents, mean * 0.18215, rtol=1e-4, atol=1e-5)


def test_equal_weights_share_a_fingerprint(sd_folder: Path, class_folder: Path) -> None:
    assert load_model(sd_folder).info.fingerprint == load_model(sd_folder).info.fingerprint
    assert load_model(sd_folder).info.fingerprint != load_model(class_folder).info.fingerprint


@pytest.mark.parametrize(
    "file",
    [
        "model_index.json",
        "unet/config.json",
        "vae/config.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/tokenizer.json",
        "tokenizer/merges.txt",
    ],
)
def test_a_changed_setting_or_vocabulary_gives_another_fingerprint(
    sd_folder: Path, tmp_path: Path, file: str
) -> None:
    """Otherwise pictures in the cache and states of runs would be used for another model."""
    folder = Path(shutil.copytree(sd_folder, tmp_path / "model"))
    before = fingerprint_of(folder)
    assert before == fingerprint_of(sd_folder), "the name is not part of it"
    with (folder / file).open("a", encoding="utf-8") as opened:
        opened.write("\n")
    assert fingerprint_of(folder) != before


def test_pictures_of_a_folder_from_earlier_versions_are_not_used(sd_folder: Path) -> None:
    """They were drawn with sampler settings in the scheduler's file, which no longer count."""
    digest = hashlib.sha256()
    for file in weight_files(sd_folder, read_index(sd_folder)):
        digest.update(f"{file.parent.name}/{file.name}".encode() + file.read_bytes())
    digest.update((sd_folder / "scheduler" / "scheduler_config.json").read_bytes())
    assert digest.hexdigest() != fingerprint_of(sd_folder)


def fingerprint_of(folder: Path) -> str:
    return folder_fingerprint(folder, read_index(folder), Progress())
