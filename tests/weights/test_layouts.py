"""Names, shapes and joints of published files, both ways."""

import functools
import json
import math
from pathlib import Path

import pytest
import torch
from published import official, same_bits, small_spec, states

from lavie.blocks.autoencoder import AutoencoderKLSpec
from lavie.blocks.text import ClipTextSpec
from lavie.blocks.tokenizer import WordsSpec
from lavie.blocks.unet import UNetSpec
from lavie.errors import WeightsError
from lavie.registry import installed
from lavie.spec import Spec
from lavie.specfile import load_spec
from lavie.weights.inflate import without_time
from lavie.weights.layouts import layout_for
from lavie.weights.source import Part

MANIFESTS = Path(__file__).parents[1] / "golden" / "manifests"
LAYOUTS: list[tuple[Part, str]] = [
    ("denoiser", "official"),
    ("denoiser", "ldm"),
    ("autoencoder", "diffusers"),
    ("autoencoder", "diffusers_old"),
    ("autoencoder", "ldm"),
    ("text_encoder", "transformers"),
    ("text_encoder", "transformers_bare"),
    ("text_encoder", "openclip"),
]


def sd1(part: Part) -> Spec:
    """Return the spec of one part of Stable Diffusion 1.4."""
    spec = load_spec("base", installed(), (), "stage")
    assert isinstance(spec.denoiser, UNetSpec)  # type: ignore[attr-defined]
    return without_time(spec.denoiser) if part == "denoiser" else getattr(spec, part)  # type: ignore[attr-defined]


@functools.cache
def ldm_shapes(part: Part) -> dict[str, list[int]]:
    spec = sd1(part)
    with torch.device("meta"):
        state = spec.build().state_dict()  # type: ignore[attr-defined]
    layout = layout_for(part, "transformers" if part == "text_encoder" else "ldm", spec)
    return {key: [*tensor.shape] for key, tensor in layout.write(state).items()}


@pytest.mark.parametrize(
    ("part", "manifest", "count"),
    [("denoiser", "sd14_unet", 686), ("autoencoder", "vae_sd14", 248), ("text_encoder", "clip_l14_text", 197)],
)
def test_a_single_file_of_stable_diffusion_has_as_many_tensors_of_the_same_sizes(part, manifest, count):
    published = [shape for shape, _ in json.loads((MANIFESTS / f"{manifest}.json").read_text()).values()]
    found = ldm_shapes(part)
    assert len(found) == len(published) == count
    assert sorted(math.prod(shape) for shape in found.values()) == sorted(math.prod(shape) for shape in published)


UNET = {
    "time_embed.2.weight": [1280, 1280],
    "input_blocks.0.0.weight": [320, 4, 3, 3],
    "input_blocks.3.0.op.weight": [320, 320, 3, 3],
    "input_blocks.4.0.skip_connection.weight": [640, 320, 1, 1],
    "input_blocks.7.1.transformer_blocks.0.attn2.to_k.weight": [1280, 768],
    "input_blocks.11.0.out_layers.3.weight": [1280, 1280, 3, 3],
    "middle_block.1.proj_in.weight": [1280, 1280, 1, 1],
    "output_blocks.2.1.conv.weight": [1280, 1280, 3, 3],
    "output_blocks.5.0.in_layers.2.weight": [1280, 1920, 3, 3],
    "output_blocks.5.1.transformer_blocks.0.ff.net.0.proj.weight": [10240, 1280],
    "output_blocks.5.2.conv.weight": [1280, 1280, 3, 3],
    "output_blocks.6.0.skip_connection.weight": [640, 1920, 1, 1],
    "output_blocks.8.2.conv.weight": [640, 640, 3, 3],
    "output_blocks.11.0.emb_layers.1.weight": [320, 1280],
    "out.2.weight": [4, 320, 3, 3],
}
AUTOENCODER = {
    "encoder.down.2.block.0.nin_shortcut.weight": [512, 256, 1, 1],
    "encoder.down.2.downsample.conv.weight": [512, 512, 3, 3],
    "encoder.mid.attn_1.q.weight": [512, 512, 1, 1],
    "decoder.mid.block_2.norm1.weight": [512],
    "decoder.up.0.block.0.conv1.weight": [128, 256, 3, 3],
    "decoder.up.1.upsample.conv.weight": [256, 256, 3, 3],
    "decoder.up.3.block.2.conv2.weight": [512, 512, 3, 3],
    "post_quant_conv.weight": [4, 4, 1, 1],
}


@pytest.mark.parametrize(("part", "known"), [("denoiser", UNET), ("autoencoder", AUTOENCODER)])
def test_names_of_single_files_stand_for_the_tensors_they_are_known_for(part, known):
    found = ldm_shapes(part)
    assert {key: found.get(key) for key in known} == known
    absent = {"input_blocks.12.0.op.weight", "output_blocks.11.1.conv.weight", "decoder.up.0.upsample.conv.weight"}
    assert not absent & found.keys()


@pytest.mark.parametrize(("part", "layout"), LAYOUTS)
def test_every_layout_gives_back_what_it_was_given(part, layout, tmp_path):
    spec = small_spec(tmp_path, "denoiser.transformer.temporal=none")
    own, file = states(spec)[part], official(spec, part, layout)
    reading = layout_for(part, layout, getattr(spec, part)).read(file)
    assert same_bits(reading.state, own)
    assert not reading.unknown
    assert not reading.left_over
    assert reading.places.keys() | reading.constants.keys() == file.keys()
    written = layout_for(part, layout, getattr(spec, part)).write(reading.state, reading.constants)
    assert same_bits(written, file)


@pytest.mark.parametrize(("part", "layout"), LAYOUTS)
def test_a_tensor_of_which_nothing_is_known_is_set_apart(part, layout, tmp_path):
    spec = small_spec(tmp_path, "denoiser.transformer.temporal=none")
    reading = layout_for(part, layout, getattr(spec, part)).read({"lora_up.weight": torch.ones(2)})
    assert [*reading.unknown] == ["lora_up.weight"]
    assert not reading.state


def test_constants_of_a_file_are_not_added_on_the_way_back_where_it_had_none(tmp_path):
    spec = small_spec(tmp_path)
    layout = layout_for("denoiser", "official", spec.denoiser)
    own = states(spec)["denoiser"]
    assert any(key.endswith("rotary_emb.freqs") for key in layout.write(own))
    assert not any(key.endswith("rotary_emb.freqs") for key in layout.write(own, {}))


def test_temporal_tensors_have_no_name_in_single_files(tmp_path):
    spec = small_spec(tmp_path)
    with pytest.raises(WeightsError, match="temporal"):
        layout_for("denoiser", "ldm", spec.denoiser).write(states(spec)["denoiser"])


@pytest.mark.parametrize(("num_layers", "fits"), [(3, True), (2, True), (1, False)])
def test_a_text_encoder_may_leave_the_last_layer_of_an_openclip_file_unused(num_layers, fits):
    """Stable Diffusion 2 takes the last layer but one."""

    def spec(count: int) -> ClipTextSpec:
        return ClipTextSpec(width=8, num_layers=count, num_heads=2, vocab_size=9, max_tokens=8, tokenizer=WordsSpec())

    file = layout_for("text_encoder", "openclip", spec(3)).write(spec(3).build().state_dict())
    reading = layout_for("text_encoder", "openclip", spec(num_layers)).read(file)
    wanted = spec(num_layers).build().state_dict().keys()
    assert (reading.state.keys() == wanted) == fits
    assert len(reading.left_over) == (0 if num_layers == 3 else 12)


@torch.no_grad()
def test_openclips_own_network_gives_the_same_context():
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    theirs = CLIP(
        8,
        CLIPVisionCfg(layers=1, width=8, head_width=8, patch_size=4, image_size=8),
        CLIPTextCfg(context_length=8, vocab_size=40, width=16, heads=2, layers=2),
    )
    generator = torch.Generator().manual_seed(0)
    for parameter in theirs.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    found: list[torch.Tensor] = []
    theirs.ln_final.register_forward_hook(lambda *call: found.append(call[2]))
    tokens = torch.randint(40, (2, 8), generator=generator)
    theirs.encode_text(tokens)
    spec = ClipTextSpec(
        width=16, num_layers=2, num_heads=2, activation="gelu", vocab_size=40, max_tokens=8, tokenizer=WordsSpec()
    )
    reading = layout_for("text_encoder", "openclip", spec).read(theirs.state_dict())
    ours = spec.build()
    ours.load_state_dict(reading.state)
    assert torch.allclose(ours(tokens), found[0], atol=1e-5)
    assert not reading.unknown
    assert {key.partition(".")[0] for key in reading.left_over} == {"visual", "text_projection", "logit_scale"}


def test_the_types_without_published_files_are_refused():
    with pytest.raises(WeightsError, match="no published files are known for the type kl"):
        layout_for("denoiser", "official", AutoencoderKLSpec())
