"""Patches of pixels as latents."""

import torch

from lavie.blocks.patches import PatchesSpec

VIDEO = torch.rand(2, 3, 4, 8, 12) * 2 - 1


def test_nothing_is_lost() -> None:
    patches = PatchesSpec(factor=4, scaling_factor=1.5).build()
    latent = patches.encode(VIDEO)
    assert latent.shape == (2, 48, 4, 2, 3)
    torch.testing.assert_close(patches.decode(latent), VIDEO)


def test_a_position_of_the_latent_is_one_square_of_pixels() -> None:
    patches = PatchesSpec(factor=4).build()
    other = VIDEO.clone()
    other[:, :, 1, 4:8, 8:12] = 0
    changed = (patches.encode(VIDEO) != patches.encode(other)).any(dim=1)
    assert changed.sum() == 2
    assert changed[:, 1, 1, 2].all()


def test_the_latent_is_scaled_and_a_draw_is_the_mode() -> None:
    patches = PatchesSpec(factor=2, scaling_factor=2.0).build()
    torch.testing.assert_close(patches.encode(VIDEO), 2 * PatchesSpec(factor=2).build().encode(VIDEO))
    assert torch.equal(patches.encode(VIDEO, torch.Generator().manual_seed(1)), patches.encode(VIDEO))
    assert not list(patches.parameters())
