"""Which layouts each part is published in, and the one that a spec needs."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from lavie.blocks.autoencoder import AutoencoderKLSpec
from lavie.blocks.text import ClipTextSpec
from lavie.blocks.unet import UNetSpec
from lavie.errors import WeightsError
from lavie.spec import Spec, type_of
from lavie.weights import ldm, openclip
from lavie.weights.clip import clip_map
from lavie.weights.kl import kl_map
from lavie.weights.layout import Layout
from lavie.weights.source import Part
from lavie.weights.unet import map_for

_CLIP_IDLE = {
    r"vision_model\..*|visual_projection\..*": "belongs to the image encoder",
    r"text_projection\..*|logit_scale": "used in training the text encoder only",
}


def _transformers(spec: ClipTextSpec) -> Layout:
    return Layout("transformers", clip_map(), idle=_CLIP_IDLE)


def _transformers_bare(spec: ClipTextSpec) -> Layout:
    return Layout("transformers_bare", clip_map(prefix=""), idle=_CLIP_IDLE)


_PUBLISHED: dict[Part, tuple[type[Spec], dict[str, Callable[[Any], Layout]]]] = {
    "denoiser": (UNetSpec, {"official": lambda spec: Layout("official", map_for(spec)), "ldm": ldm.unet_layout}),
    "autoencoder": (
        AutoencoderKLSpec,
        {
            "diffusers": lambda spec: Layout("diffusers", kl_map()),
            "diffusers_old": lambda spec: Layout("diffusers_old", kl_map(legacy=True)),
            "ldm": ldm.kl_layout,
        },
    ),
    "text_encoder": (
        ClipTextSpec,
        {
            "transformers": _transformers,
            "transformers_bare": _transformers_bare,
            "openclip": openclip.clip_layout,
        },
    ),
}
DESCRIPTIONS = {
    "official": "names of diffusers and LaVie",
    "ldm": "names of the latent-diffusion code",
    "diffusers": "names of diffusers",
    "diffusers_old": "names of diffusers, old spelling",
    "transformers": "names of transformers",
    "transformers_bare": "names of transformers, without text_model",
    "openclip": "names of OpenCLIP",
    "lavie": "names of lavie",
}
"""What each layout is called towards users."""


@lru_cache(maxsize=32)
def layout_for(part: Part, name: str, spec: Spec) -> Layout:
    """Return the layout in which files spell a part that `spec` builds.

    Raises:
        WeightsError: if no such network has been published in it.
    """
    cls, layouts = _PUBLISHED[part]
    if not isinstance(spec, cls):
        raise WeightsError(f"{part}: no published files are known for the type {type_of(type(spec))}")
    return layouts[name](spec)
