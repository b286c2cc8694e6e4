"""What whole networks promise: denoiser, autoencoder, text encoder. Big ones are checked by shape alone."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lavie.blocks.autoencoder import Autoencoder, AutoencoderSpec
from lavie.blocks.base import Conditioning, Denoiser, DenoiserSpec, Site
from lavie.blocks.text import TextEncoder, TextEncoderSpec
from lavie.testing.expect import BATCH, NUM_FRAMES, NUM_TOKENS, build_on_meta, check_run, expect, seeded

SMALL = 5_000_000
"""Parameters up to which a network is run with numbers, not only with shapes."""


def check_denoiser(spec: DenoiserSpec, site: Site, inputs: Mapping[str, Tensor]) -> None:
    """Predict in the shape of the noisy latent, for one frame and for several; small ones also as layers do."""
    in_channels, out_channels = int(getattr(spec, "in_channels", 4)), int(getattr(spec, "out_channels", 4))
    width, side = int(getattr(spec, "context_dim", 1)), 16
    network = build_on_meta(spec, spec.build)
    expect(isinstance(network, Denoiser), spec, f"builds {type(network).__name__}, which is no Denoiser")

    def run(x: Tensor, cond: Conditioning) -> Tensor:
        return network(x, torch.full((len(x),), 100, device=x.device), Conditioning(cond.context, inputs=inputs))

    with torch.device("meta"), torch.inference_mode():
        cond = Conditioning(torch.empty(BATCH, NUM_TOKENS, width))
        for num_frames in (1, NUM_FRAMES):
            x = torch.empty(BATCH, in_channels, num_frames, side, side)
            out, due = run(x, cond), (BATCH, out_channels, num_frames, side, side)
            expect(out.shape == due, spec, f"predicts shape {tuple(out.shape)} where {due} is due")
    if not inputs and is_small(network):
        with seeded():
            network = spec.build()
            x = torch.randn(BATCH, in_channels, NUM_FRAMES, side, side)
            check_run(spec, network, run, x, Site(in_channels, context_dim=width))


def check_autoencoder(spec: AutoencoderSpec, site: Site, inputs: Mapping[str, Tensor]) -> None:
    """Shrink by `factor`, and come back to the video's shape."""
    autoencoder = build_on_meta(spec, spec.build)
    expect(isinstance(autoencoder, Autoencoder), spec, f"builds {type(autoencoder).__name__}, no Autoencoder")
    side = 4 * autoencoder.factor
    device = torch.device("meta")
    if is_small(autoencoder):
        device = torch.device("cpu")
        with seeded():
            autoencoder = spec.build()
    with torch.inference_mode(), seeded():
        video = torch.randn(BATCH, 3, 2, side, side, device=device).clamp(-1, 1)
        latent, due = autoencoder.encode(video), (BATCH, autoencoder.latent_channels, 2, 4, 4)
        expect(latent.shape == due, spec, f"encodes to shape {tuple(latent.shape)} where {due} is due")
        again = autoencoder.decode(latent)
        expect(again.shape == video.shape, spec, f"decodes to shape {tuple(again.shape)}, not {tuple(video.shape)}")


def check_text_encoder(spec: TextEncoderSpec, site: Site, inputs: Mapping[str, Tensor]) -> None:
    """Give `max_tokens` tokens of width `context_dim`, whatever the length of the prompt."""
    encoder = build_on_meta(spec, spec.build)
    expect(isinstance(encoder, TextEncoder), spec, f"builds {type(encoder).__name__}, which is no TextEncoder")
    prompts = ["", "a dog", "word " * 3 * encoder.max_tokens]
    due = (len(prompts), encoder.max_tokens, encoder.context_dim)
    token_ids = encoder.tokenize(prompts)
    expect(token_ids.shape == due[:2], spec, f"makes token numbers of shape {tuple(token_ids.shape)}, {due[:2]} is due")
    if not is_small(encoder):
        context = encoder(token_ids.to("meta"))
    else:
        with seeded():
            encoder = spec.build().eval()
        with torch.inference_mode():
            context = encoder.encode(prompts)
            expect(torch.equal(context, encoder.encode(prompts)), spec, "is not deterministic in eval")
    expect(context.shape == due, spec, f"returns a context of shape {tuple(context.shape)} where {due} is due")
    expect(bool(encoder.lost_words(prompts[2])), spec, "does not tell which words are cut off")


def is_small(network: nn.Module) -> bool:
    """Tell whether a network is run with numbers."""
    return sum(parameter.numel() for parameter in network.parameters()) <= SMALL
