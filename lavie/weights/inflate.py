"""From an image network to a video network: its weights where it has them, silent temporal parts elsewhere.

At one frame the video network then computes what the image network does; with more, it still differs from running the
image network on every frame, since the norms outside the transformers see all frames at once.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from lavie.blocks.base import TemporalSpec
from lavie.blocks.temporal import NoTemporalSpec
from lavie.blocks.unet import UNetSpec
from lavie.spec import PerLevel
from lavie.weights.files import check_names
from lavie.weights.shapes import shapes_of
from lavie.weights.unet import map_for

CONV_IN = "conv_in.weight"
"""The tensor that is widened where the video network has more inputs than the image network."""


def without_time(spec: UNetSpec) -> UNetSpec:
    """Return the spec of the image network that a video network descends from: every temporal slot empty."""
    nothing = PerLevel[TemporalSpec](everywhere=NoTemporalSpec())
    transformer = spec.transformer.model_copy(update={"temporal": nothing, "before": nothing})
    return spec.model_copy(update={"transformer": transformer, "after_level": nothing})


def image_shapes(spec: UNetSpec) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor of a video network that its image network has as well."""
    names = map_for(spec)
    return {key: shape for key, shape in shapes_of(without_time(spec)).items() if names.knows(key)}


def fresh_names(spec: UNetSpec, found: Mapping[str, Tensor]) -> list[str]:
    """Return the tensors of a video network that its image network lacks, or nothing if `found` has one of them."""
    image = image_shapes(spec)
    fresh = [key for key in shapes_of(spec) if key not in image]
    return [] if any(key in found for key in fresh) else fresh


def inflate(spec: UNetSpec, image: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """Return weights of a video network from those of its image network, under our names.

    Temporal parts, and inputs that the image network does not have, start as in a new network and add nothing to the
    output. An input layer with fewer channels is widened with zeros: the image network's channels come first.
    `seed` draws the weights behind the silent output projections.

    Raises:
        WeightsError: naming what is missing, superfluous or of another shape.
    """
    image = {**image, **_widened(spec, image)}
    shapes = image_shapes(spec)
    check_names("the image network", {key: tuple(tensor.shape) for key, tensor in image.items()}, shapes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = spec.build().state_dict()
    return {key: image.get(key, tensor) for key, tensor in fresh.items()}


def _widened(spec: UNetSpec, image: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the input layer with zeros for the channels that conditioners put after the latent's."""
    kernel = image.get(CONV_IN)
    wanted = image_shapes(spec)[CONV_IN][1]
    if kernel is None or kernel.ndim != 4 or kernel.shape[1] != spec.in_channels or wanted <= spec.in_channels:
        return {}
    zeros = kernel.new_zeros(len(kernel), wanted - spec.in_channels, *kernel.shape[2:])
    return {CONV_IN: torch.cat((kernel, zeros), dim=1)}
