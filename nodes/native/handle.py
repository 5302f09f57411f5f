"""A MODEL, CLIP and VAE of ComfyUI as a model handle of the core."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NoReturn

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn
from typing_extensions import Self

from ...unlearn_core.foundation.progress import Progress
from ...unlearn_core.models.denoiser import sample_dpm_solver, seeded_noise
from ...unlearn_core.models.errors import UnsupportedError
from ...unlearn_core.models.guidance import guided
from ...unlearn_core.models.protocol import Conditioning, LoraLayer, ModelInfo, Vocabulary
from ...unlearn_core.models.weights import LazyTensors
from ..host import memory
from . import conditioning as text
from . import pictures, sampling
from .adapters import Adapters, Whole, low_rank_adapters
from .conditioning import NativeConditioning
from .families import layers_in
from .hooks import Hooks, attention_with_backward, outside_inference_mode
from .names import unet_names
from .network import Network
from .schedules import DiscreteSchedule


@dataclass(frozen=True, eq=False)
class NativeHandle:
    """A model that ComfyUI runs: its denoiser, text encoders, samplers, autoencoder and memory
    management. What is trained are separate low-rank layers.

    Attributes:
        network: the denoiser.
        clip, vae: ComfyUI's objects; ``vae`` is None if none is linked.
        adapters: the trained layers; empty in a loaded model.
    """

    info: ModelInfo
    network: Network
    clip: Any
    vae: Any
    adapters: Adapters = field(default_factory=lambda: Adapters({}))

    @property
    def device(self) -> torch.device:
        return self.network.device

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        edge = self.info.image_size // self._downscale
        return (int(self.network.latent_format.latent_channels), edge, edge)

    @property
    def size_step(self) -> int:
        channels = self.network.model.model_config.unet_config.get("channel_mult")
        return self._downscale * (2 ** (len(channels) - 1) if channels else 2)

    @property
    def _downscale(self) -> int:
        if self.vae is None:
            return self.network.downscale
        return int(self.vae.spacial_compression_encode())

    @property
    def default_scope(self) -> str:
        return self.network.family.default_scope

    def times(self, levels: Tensor) -> Tensor:
        return self.network.schedule.times(levels)

    def encode_prompts(self, prompts: Sequence[str]) -> NativeConditioning:
        return text.encode(self.clip, prompts)

    def check_prompts(self, prompts: Sequence[str]) -> None:
        text.check(prompts)

    def word_embedding(self, word: str) -> Tensor:
        self._refuse_words()

    def with_word(self, word: str, embedding: Tensor) -> Self:
        self._refuse_words()

    def vocabulary(self) -> Vocabulary:
        self._refuse_words()

    def _refuse_words(self) -> NoReturn:
        raise UnsupportedError(
            f"learning a new word is not supported for {self.info.name!r}, a MODEL of ComfyUI; "
            "choose probes that train no words"
        )

    def encode_images(self, images: Tensor) -> Tensor:
        return pictures.encode(self.vae, self.network, images)

    @property
    def can_decode(self) -> bool:
        return self.vae is not None

    def decode_latents(self, latents: Tensor) -> Tensor:
        return pictures.decode(self.vae, self.network, latents)

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return self.network.schedule.add_noise(latents, noise, t)

    def predict(self, latents_t: Tensor, conditioning: Conditioning, t: Tensor) -> Tensor:
        assert isinstance(conditioning, NativeConditioning)
        with outside_inference_mode():
            self.load()
            with self._hooks.predicting():
                return self._predict(latents_t, conditioning.to(self.device), t)

    def _predict(self, latents_t: Tensor, conditioning: NativeConditioning, t: Tensor) -> Tensor:
        network, schedule = self.network, self.network.schedule
        inputs = network.with_axis(schedule.network_input(latents_t, t))
        sigmas = schedule.sigmas(t)
        outputs: list[Tensor] = []
        order: list[int] = []
        for members, arguments in text.batches(network.model, conditioning.rows, inputs):
            x, sigma = inputs[members], sigmas[members]
            options = {
                **network.patcher.model_options.get("transformer_options", {}),
                "optimized_attention_override": attention_with_backward,
                "cond_or_uncond": [0],
                "sigmas": sigma,
                "sample_sigmas": sigma,
            }
            denoised = network.model.apply_model(x, sigma, transformer_options=options, **arguments)
            outputs.append(schedule.output(x, denoised, t[members]))
            order += members
        places = torch.tensor(order).argsort().to(self.device)
        return network.without_axis(torch.cat(outputs)[places].float())

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return self.network.schedule.target(latents, noise, t)

    def denoise_error(
        self, latents: Tensor, conditioning: Conditioning, noise: Tensor, t: Tensor
    ) -> Tensor:
        output = self.predict(self.add_noise(latents, noise, t), conditioning, t)
        return (output - self.target(latents, noise, t)).square()

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int,
        guidance_scale: float,
        latent_shape: tuple[int, int, int] | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        noise = seeded_noise(seeds, latent_shape or self.latent_shape)
        with outside_inference_mode():
            return self._sample(
                prompts, noise, seeds, steps, guidance_scale, progress or Progress()
            )

    def _sample(
        self,
        prompts: Sequence[str],
        noise: Tensor,
        seeds: Sequence[int],
        steps: int,
        guidance_scale: float,
        progress: Progress,
    ) -> Tensor:
        prompt, empty = self.encode_prompts(prompts), self.encode_prompts([""])
        schedule = self.network.schedule
        if isinstance(schedule, DiscreteSchedule) and not sampling.has_own_guidance(self.network):
            empty = empty[[0] * len(prompt)]
            predict = guided(self.predict, prompt, empty, guidance_scale)
            config = schedule.scheduler_config()
            return sample_dpm_solver(config, noise.to(self.device), predict, steps, progress)
        self.load()
        with self._hooks.sampling():
            drawn = [
                sampling.draw(
                    self.network, noise[i : i + 1], row, empty.rows[0], steps, guidance_scale,
                    seed, progress,
                )
                for i, (row, seed) in enumerate(zip(prompt.rows, seeds, strict=True))
            ]  # fmt: skip
        return torch.cat(drawn).to(self.device)

    def passes_per_step(self, guidance_scale: float) -> int:
        return 1 if guidance_scale == 1 else 2

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.adapters.named_with(self.network.module)

    def parameters_in(self, scope: str) -> list[str]:
        layers = layers_in(self.network.family, self.network.modules, scope)
        return [f"{name}.weight" for name in layers]

    def text_projections(self) -> dict[str, str]:
        """Empty with T5: each of its embeddings depends on the whole prompt, so a concept has no
        tokens of its own."""
        return {} if text.has_t5(self.clip) else dict(self.network.text_projections)

    @torch.inference_mode(False)
    def trainable_copy(self, names: Sequence[str]) -> Self:
        """Only of the weights that read the prompt, for the closed-form edit.

        Raises:
            UnsupportedError: other weights.
        """
        if not set(names) <= set(self.network.text_projections):
            raise UnsupportedError(
                f"scope must be a low-rank one for {self.info.name!r}, a MODEL of ComfyUI, whose "
                f"own weights are never changed; choose {self.default_scope!r}"
            )
        self.load()
        modules = [name.removesuffix(".weight") for name in names]
        layers = {name: Whole(self.network.weight(name).clone()) for name in modules}
        return replace(self, adapters=Adapters(layers))

    @torch.inference_mode(False)
    def lora_copy(self, names: Sequence[str], rank: int, alpha: float, seed: int) -> Self:
        if self.adapters:
            raise ValueError("scope: the model already has LoRA layers; save and load it first")
        self.load()
        network = self.network
        diffusers = unet_names(network.model)
        adapters = low_rank_adapters(
            network.modules,
            [name.removesuffix(".weight") for name in names],
            rank,
            alpha,
            seed,
            self.device,
            lambda name: diffusers.get(name, name),
        )
        return replace(self, adapters=Adapters(adapters.layers, self.adapters.fixed))

    @torch.inference_mode(False)
    def fixed_copy(self) -> Self:
        return replace(self, adapters=self.adapters.as_fixed())

    def lora_layers(self) -> dict[str, LoraLayer]:
        return self.adapters.lora_layers()

    def own_tensors(self) -> list[Tensor]:
        """The trained layers; all other weights belong to the MODEL."""
        return list(self.adapters.parameters())

    def get_ram_usage(self) -> int:
        """Bytes of ``own_tensors``. ComfyUI's cache of outputs calls this method by name; the MODEL
        is counted as an output of its loader."""
        return sum(tensor.nbytes for tensor in self.own_tensors())

    def at_strength(self, strength: float) -> Self:
        """A handle with ``strength`` times the change, of the present values."""
        layers = self.adapters.layers
        scaled = {
            name: layer.scaled(strength, self._weight(name)) for name, layer in layers.items()
        }
        return replace(self, adapters=Adapters(scaled))

    def changed_tensors(self) -> Mapping[str, Tensor]:
        layers = self.adapters.layers
        changed = [
            name for name, layer in layers.items() if layer.has_effect(partial(self._weight, name))
        ]

        def merged(name: str) -> Tensor:
            weight = self._weight(name)
            return weight + layers[name].delta(weight)

        return LazyTensors({f"{name}.weight": partial(merged, name) for name in changed})

    def change(self, name: str) -> Tensor:
        """The change of a layer's weight, in fp32."""
        return self.adapters.layers[name].delta(self._weight(name))

    def _weight(self, name: str) -> Tensor:
        """The MODEL's own weight of a layer, in fp32."""
        self.load()
        return self.network.weight(name)

    @property
    def patcher_of_network(self) -> ModelPatcher:
        """The patcher with which ComfyUI loads and unloads the network; see ``host.memory``."""
        return self.network.patcher

    @cached_property
    def _hooks(self) -> Hooks:
        return Hooks(self.network.module, self.adapters)

    def load(self) -> None:
        """Load the network and the trained layers unless ComfyUI has them on the device."""
        if not (self.network.is_whole and memory.is_loaded(self)):
            memory.load(self)
        self.network.make_trainable()
