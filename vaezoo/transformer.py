"""Transformers for sequences of ids (Vaswani et al. 2017, arXiv 1706.03762), with normalisation before each part.

Networks of texts and the prior of codes have them. Sequences may be shorter than the largest length.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.errors import VaezooError

HEAD_SIZE = 16  # features of one attention head
EMBEDDING_STD = 0.1  # of initial embeddings: between them and positions no part outweighs the others


def require_heads(hidden: int) -> None:
    """Raises VaezooError unless a number of features consists of attention heads."""
    if hidden % HEAD_SIZE:
        raise VaezooError(f"option 'hidden' is {hidden}", f"give 'hidden' a multiple of {HEAD_SIZE}")


class Attention(nn.Module):
    """Multi-head attention of the positions of a sequence to each other.

    Args:
        width: Features of a position, a multiple of HEAD_SIZE.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, h: Tensor, visible: Tensor) -> Tensor:
        """Returns what each position gathers, `(B, T, width)`.

        Args:
            h: Positions, `(B, T, width)`.
            visible: Whether a position (the last dimension but one) sees another (the last), bool, of a shape that
                broadcasts to `(B, heads, T, T)`.
        """
        heads = self.queries_keys_values(h).unflatten(2, (-1, HEAD_SIZE)).transpose(1, 2)  # (B, 3 heads, T, HEAD_SIZE)
        q, k, v = heads.chunk(3, dim=1)
        gathered = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        output: Tensor = self.output(gathered.transpose(1, 2).flatten(2))
        return output


class Layer(nn.Module):
    """One layer of a transformer: attention, then two dense layers for each position. Both are added to their input.

    Args:
        width: Features of a position.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width)
        self.dense = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, h: Tensor, visible: Tensor) -> Tensor:
        h = h + self.attention(self.attention_norm(h), visible)
        output: Tensor = h + self.dense(h)
        return output


class Transformer(nn.Module):
    """Several layers between ids and features, with a learned embedding of each position.

    Args:
        ids: Number of ids.
        length: The largest number of ids of a sequence.
        width: Features of a position.
        layers: Number of layers.
    """

    def __init__(self, ids: int, length: int, width: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(ids, width)
        self.positions = nn.Parameter(torch.empty(length, width))
        self.layers = nn.ModuleList(Layer(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_STD)
        nn.init.normal_(self.positions, std=EMBEDDING_STD)

    def embed(self, ids: Tensor) -> Tensor:
        """Returns the embeddings of ids `(B, T)` and of their positions, added up, `(B, T, width)`."""
        output: Tensor = self.embedding(ids) + self.positions[: ids.shape[1]]
        return output

    def forward(self, h: Tensor, visible: Tensor) -> Tensor:
        """Returns features `(B, T, width)` for embeddings of that shape. `visible` is as in `Attention`."""
        for layer in self.layers:
            h = layer(h, visible)
        output: Tensor = self.norm(h)
        return output
