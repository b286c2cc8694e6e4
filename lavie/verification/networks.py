"""Recorded networks: built from the recorded configuration and weights, and run on the recorded inputs."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

import torch
from einops import rearrange
from torch import Tensor, nn

from lavie.blocks.base import Conditioning
from lavie.blocks.unet import UNet3D, use_channels_last
from lavie.samplers.recorded_tables import UnsupportedError
from lavie.verification.comparison import Bound, Check, Comparison, Place
from lavie.verification.golden import Golden, as_timesteps
from lavie.weights import clip, kl, unet
from lavie.weights.keymap import KeyMap

NETWORK = Bound(5e-5, "absolute")
ENCODER = Bound(1e-4, "relative")
N = TypeVar("N", bound=nn.Module)


def compare_unet(golden: Golden, place: Place, network: unet.Network | Literal["image"]) -> Comparison:
    """Run a UNet, in the way that fits its kind."""
    with refused():
        spec = unet.spec_from_config(golden.settings("config"), network)
    built = _load(spec.build, unet.map_for(spec), golden, place)
    use_channels_last(built)
    sample = golden["inputs.sample"]
    if network == "image":
        found = _predict(built, golden, place, rearrange(sample, "b c h w -> b c 1 h w"))
        found = rearrange(found, "b c 1 h w -> b c h w")
    elif golden.settings("call", "{}").get("cfg"):
        found = _guided(built, golden, place)
    else:
        found = _predict(built, golden, place, sample)
    return Comparison([Check("output", found, golden["output"], place.bound(NETWORK))])


def compare_autoencoder(golden: Golden, place: Place) -> Comparison:
    """Run an autoencoder both ways; recordings hold unclamped moments, and know no scaling factor."""
    with refused():
        spec = kl.spec_from_config(golden.settings("config"))
    built = _load(spec.build, kl.kl_map(), golden, place)
    ways: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
        "output.moments": ("inputs.image", lambda image: built.quant_conv(built.encoder(image))),
        "output.decoded": ("inputs.latent", lambda latent: built.decoder(built.post_quant_conv(latent))),
    }
    checks = []
    with torch.inference_mode():
        for output, (source, run) in ways.items():
            if output in golden.tensors:
                found = run(place.put(golden[source]).contiguous(memory_format=torch.channels_last))
                checks.append(Check(output, found, golden[output], place.bound(ENCODER)))
    return Comparison(checks)


def compare_text_encoder(golden: Golden, place: Place) -> Comparison:
    """Run a text encoder on token numbers."""
    with refused():
        spec = clip.spec_from_config(golden.settings("config"))
    built = _load(spec.build, clip.clip_map(), golden, place)
    with torch.inference_mode():
        found = built(place.put(golden["inputs.input_ids"]))
    return Comparison([Check("output", found, golden["output"], place.bound(ENCODER))])


@contextmanager
def refused() -> Iterator[None]:
    """Turn the refusal to build something into the answer that lavie has no counterpart for it.

    Raises:
        UnsupportedError: with the reason of the refusal.
    """
    try:
        yield
    except ValueError as error:
        raise UnsupportedError(str(error)) from error


def _load(build: Callable[[], N], key_map: KeyMap, golden: Golden, place: Place) -> N:
    """Build without memory, so that names and sizes are compared before any is taken, then take in the weights."""
    with refused(), torch.device("meta"):
        network = build()
    key_map.load(network, golden.weights, assign=True)
    return network.to(place.device, place.dtype).eval()


def _predict(network: UNet3D, golden: Golden, place: Place, sample: Tensor) -> Tensor:
    """Run the network on samples whose channels beyond those of the latent are its further inputs."""
    latent = network.conv_out.weight.shape[0]
    context = place.put(golden["inputs.encoder_hidden_states"])
    images = context.shape[1] - 1 if context.ndim == 4 else int(golden.metadata.get("use_image_num") or 0)
    inputs = {"frames": sample[:, latent:], "low_res": golden.tensors.get("inputs.low_res", sample[:, latent:])}
    if "inputs.class_labels" in golden.tensors:
        inputs["noise_level"] = as_timesteps(golden["inputs.class_labels"], len(sample))
    cond = Conditioning(context, num_images=images, inputs={name: place.put(value) for name, value in inputs.items()})
    timestep = as_timesteps(golden["inputs.timestep"], len(sample)).to(place.device)
    with torch.inference_mode():
        return network(place.put(sample[:, :latent]), timestep, cond)


def _guided(network: UNet3D, golden: Golden, place: Place) -> Tensor:
    """Run the interpolation network as its official wrapper does.

    The first half of the samples runs twice, with text first and without it second, and the guided prediction is
    returned twice.
    """
    sample = golden["inputs.sample"]
    half = sample[: len(sample) // 2]
    with_text, without = _predict(network, golden, place, torch.cat((half, half))).chunk(2)
    guided = without + _guidance_scale(golden) * (with_text - without)
    return torch.cat((guided, guided))


def _guidance_scale(golden: Golden) -> float:
    given = golden.settings("call").get("cfg_scale")
    noted = re.search(r"cfg_scale=([0-9.]*[0-9])", golden.metadata.get("notes", ""))
    return float(given or (noted.group(1) if noted else 4.0))
