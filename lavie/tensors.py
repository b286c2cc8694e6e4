"""Axis names and the tensor aliases shared by every signature.

Axes: `b` batch, `c` channels, `f` frames, `h w` height and width, `n` = h·w positions, `l` text tokens, `d` token
width, `e` embedding, `k` heads.
"""

from jaxtyping import Float, Int
from torch import Tensor

Video = Float[Tensor, "b c f h w"]
"""Pixels in [-1, 1], a latent, or activations: anything laid out along time and space."""
Tokens = Float[Tensor, "b l d"]
"""Token sequences, text or positions."""
Timestep = Int[Tensor, "b"] | Float[Tensor, "b"]
"""What the denoiser is told, one per sample, in [0, num_train_timesteps)."""
