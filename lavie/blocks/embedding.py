"""Lookup tables."""

import torch
from torch import nn


def normal_embedding(num_rows: int, width: int) -> nn.Embedding:
    """Return a table drawn from the unit normal.

    On the meta device nothing is drawn: torch does that through its compiler stack, which takes a second to import.
    """
    table = torch.empty(num_rows, width)
    table = table if table.is_meta else table.normal_()
    return nn.Embedding.from_pretrained(table, freeze=False)  # type: ignore[no-untyped-call]
