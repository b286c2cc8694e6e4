"""The settings that everything is measured in: sizes of the networks and of what goes through them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Frames, height and width of a latent."""

    num_frames: int
    height: int
    width: int

    def of(self, channels: int, batch: int = 1) -> tuple[int, int, int, int, int]:
        """Return (b, c, f, h, w)."""
        return batch, channels, self.num_frames, self.height, self.width


@dataclass(frozen=True)
class Widths:
    """The denoiser's size: all levels but the coarsest have transformers."""

    channels: tuple[int, ...]
    num_heads: tuple[int, ...]
    num_res_blocks: int = 2


@dataclass(frozen=True)
class Text:
    """Tokens of a prompt and their width."""

    num_tokens: int = 77
    dim: int = 768


@dataclass(frozen=True)
class Decoding:
    """The autoencoder's widths, finest first, and the latent that it decodes."""

    channels: tuple[int, ...]
    latent: Shape


@dataclass(frozen=True)
class Setting:
    """One set of sizes; a ratio means something only together with its setting."""

    name: str
    widths: Widths
    latent: Shape
    decoding: Decoding
    training: Shape | None
    """The latent of a training step; None where optimizer state would not fit into common memory."""
    text: Text = Text()
    num_steps: int = 50
    """Steps of a sampling loop."""


NARROW = Widths((64, 128, 256, 256), (2, 4, 8, 8))
"""The published network's structure with a fifth of its width, heads 32 wide."""
FULL = Widths((320, 640, 1280, 1280), (8, 8, 8, 8))
"""The published widths."""
NARROW_DECODER = (32, 64, 128, 128)
FULL_DECODER = (128, 256, 512, 512)

SETTINGS = {
    setting.name: setting
    for setting in (
        Setting(
            "tiny",
            Widths((32, 64), (1, 2), num_res_blocks=1),
            Shape(3, 4, 8),
            Decoding((16, 32), Shape(2, 4, 4)),
            Shape(2, 4, 4),
            Text(5, 16),
            num_steps=4,
        ),
        Setting("narrow", NARROW, Shape(16, 20, 32), Decoding(NARROW_DECODER, Shape(4, 20, 32)), Shape(8, 16, 16)),
        Setting("small", FULL, Shape(8, 8, 16), Decoding(FULL_DECODER, Shape(2, 8, 16)), None),
        Setting("tokens2560", NARROW, Shape(2, 40, 64), Decoding(NARROW_DECODER, Shape(1, 40, 64)), Shape(2, 32, 32)),
    )
}
