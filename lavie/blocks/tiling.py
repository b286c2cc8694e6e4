"""Runs an image network tile by tile, to the same numbers, in a fraction of the memory.

Tiles that run through a whole autoencoder on their own show: each normalises by its own statistics, and what they
make of an image then differs visibly. So here every layer runs over all tiles before the next one begins. Convolutions
see the real neighbours of a tile, norms the statistics of the whole image, and attention, which sits where images are
smallest, the whole image. The only features kept whole are those that later tiles of the same layer still need.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lavie.blocks.image_layers import Double, Halve, ImageNetwork, ImageResBlock

Read = Callable[[range, range], Tensor]
"""`(rows, columns) -> features there`, of all images."""


@dataclass(frozen=True, eq=False)
class Sheet:
    """Features of images that are read in rectangles, and may be computed only then."""

    read: Read
    height: int
    width: int

    def tiles(self, size: int) -> Iterator[tuple[range, range]]:
        """Yield rectangles of up to `size` × `size` that make up the sheet."""
        for top in range(0, self.height, size):
            for left in range(0, self.width, size):
                yield range(top, min(top + size, self.height)), range(left, min(left + size, self.width))


def run_in_tiles(network: ImageNetwork, images: Float[Tensor, "n c h w"], tile: int) -> Float[Tensor, "n out p q"]:
    """Return what the network makes of images, no layer working on more than `tile` × `tile` positions at once.

    Differs from `network(images)` by rounding alone. Needs no gradients.
    """
    layers = network.layers()
    largest = next((layer for layer in reversed(layers) if isinstance(layer, Double)), None)
    x: Tensor | Sheet = _stored(_convolved(_sheet(images), network.conv_in), tile)
    for layer in layers:
        match layer:
            case ImageResBlock():
                x = _resblock(layer, x, tile)
            case Double():
                x = _convolved(_doubled(_sheet(x)), layer.conv)
                if layer is not largest:  # which would be the largest of all features, and is only read twice
                    x = _stored(x, tile)
            case Halve():
                x = _stored(_convolved(_sheet(x), layer.conv), tile)
            case _:
                x = layer(_stored(x, tile))
    last = _sheet(x)
    return _stored(_convolved(_normed(last, network.norm_out, tile), network.conv_out), tile)


def _resblock(block: ImageResBlock, x: Tensor | Sheet, tile: int) -> Tensor:
    """Return block(x); features that are stored and added to are overwritten."""
    sheet = _sheet(x)
    first = _convolved(_normed(sheet, block.norm1, tile), block.conv1)
    if isinstance(x, Tensor) and isinstance(block.shortcut, nn.Identity):
        out, hidden = x, _stored(first, tile)
    else:
        out = _stored(Sheet(lambda rows, columns: block.shortcut(sheet.read(rows, columns)), *_size(sheet)), tile)
        hidden = _stored(first, tile)
    second = _convolved(_normed(_sheet(hidden), block.norm2, tile), block.conv2)
    for rows, columns in second.tiles(tile):
        _cut(out, rows, columns).add_(second.read(rows, columns))
    return out


def _size(sheet: Sheet) -> tuple[int, int]:
    return sheet.height, sheet.width


def _cut(x: Float[Tensor, "n c h w"], rows: range, columns: range) -> Float[Tensor, "n c p q"]:
    return x[:, :, rows.start : rows.stop, columns.start : columns.stop]


def _sheet(x: Tensor | Sheet) -> Sheet:
    if isinstance(x, Sheet):
        return x
    return Sheet(lambda rows, columns: _cut(x, rows, columns), *x.shape[2:])


def _stored(x: Tensor | Sheet, tile: int) -> Tensor:
    """Return the features of a sheet as one tensor, each tile computed once."""
    if isinstance(x, Tensor):
        return x
    whole = None
    for rows, columns in x.tiles(tile):
        piece = x.read(rows, columns)
        if whole is None:
            shape = (*piece.shape[:2], x.height, x.width)
            whole = torch.empty(shape, device=piece.device, dtype=piece.dtype, memory_format=torch.channels_last)
        _cut(whole, rows, columns).copy_(piece)
    assert whole is not None, "an image has at least one position"
    return whole


def _convolved(x: Sheet, conv: nn.Conv2d) -> Sheet:
    """Return a sheet that convolves what it reads; beyond the image there are zeros.

    A convolution of stride 2 takes its padding on the right and at the bottom.
    """
    (kernel, _), (stride, _), padding = conv.kernel_size, conv.stride, conv.padding[0]
    assert isinstance(padding, int)

    def read(rows: range, columns: range) -> Tensor:
        (inner_rows, above, below), (inner_columns, left, right) = (
            _reach(span.start * stride - padding, (span.stop - 1) * stride - padding + kernel, end)
            for span, end in ((rows, x.height), (columns, x.width))
        )
        piece = F.pad(x.read(inner_rows, inner_columns), (left, right, above, below))
        return F.conv2d(piece, conv.weight, conv.bias, stride=stride)

    return Sheet(read, x.height // stride, x.width // stride)


def _reach(start: int, stop: int, end: int) -> tuple[range, int, int]:
    """Return the part of [start, stop) that lies in [0, end), and how much lies before and behind."""
    inner = range(max(start, 0), min(stop, end))
    return inner, inner.start - start, stop - inner.stop


def _doubled(x: Sheet) -> Sheet:
    """Return a sheet of twice the size, by nearest neighbour."""

    def read(rows: range, columns: range) -> Tensor:
        coarse = x.read(*(range(span.start // 2, (span.stop + 1) // 2) for span in (rows, columns)))
        fine = F.interpolate(coarse, scale_factor=2.0, mode="nearest")
        top, left = rows.start % 2, columns.start % 2
        return fine[:, :, top : top + len(rows), left : left + len(columns)]

    return Sheet(read, 2 * x.height, 2 * x.width)


def _normed(x: Sheet, norm: nn.GroupNorm, tile: int) -> Sheet:
    """Return a sheet that normalises by the statistics of the whole image, then applies SiLU."""
    mean, variance = _statistics(x, norm, tile)
    scale = norm.weight.float() * _per_channel((variance + norm.eps).rsqrt(), norm)
    shift = norm.bias.float() - scale * _per_channel(mean, norm)

    def read(rows: range, columns: range) -> Tensor:
        piece = x.read(rows, columns)
        normed = torch.addcmul(shift[:, :, None, None], piece.float(), scale[:, :, None, None])
        return F.silu(normed.to(piece.dtype))

    return Sheet(read, x.height, x.width)


def _per_channel(values: Float[Tensor, "n g"], norm: nn.GroupNorm) -> Float[Tensor, "n c"]:
    return values.float().repeat_interleave(norm.num_channels // norm.num_groups, dim=1)


def _statistics(x: Sheet, norm: nn.GroupNorm, tile: int) -> tuple[Float[Tensor, "n g"], Float[Tensor, "n g"]]:
    """Return mean and variance of each group over the whole image, gathered tile by tile in float64."""
    mean = spread = torch.zeros((), dtype=torch.float64, device=norm.weight.device)
    count = 0
    for rows, columns in x.tiles(tile):
        piece = rearrange(x.read(rows, columns), "n (g c) h w -> n g (c h w)", g=norm.num_groups)
        variance, its_mean = torch.var_mean(piece.float(), dim=2, correction=0)
        more, away = piece.shape[2], its_mean.double() - mean
        spread = spread + more * variance.double() + away.square() * (count * more / (count + more))
        mean = mean + away * (more / (count + more))
        count += more
    return mean, spread / count
