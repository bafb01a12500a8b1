"""The common basis of several updates of one weight (KnOTS, arXiv 2410.19735, section 3), from their Gram matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

ROUNDING = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Tied:
    """n updates in one basis: D_i = basis @ diag(values) @ parts[i].

    Args:
        basis: U, (out, k), orthonormal columns, float64.
        values: S, (k), positive, falling, float64.
        parts: the V_i^T, each (k, in), float32.
    """

    basis: torch.Tensor
    values: torch.Tensor
    parts: list[torch.Tensor]

    def update(self, part: torch.Tensor) -> torch.Tensor:
        """basis @ diag(values) @ part, (out, in), float32."""
        return (self.basis * self.values).float() @ part


def tie_updates(updates: Sequence[torch.Tensor], smallest: float = 0.0) -> Tied:
    """The common basis of updates of any rank, from the smaller Gram matrix of [D_1 ... D_n].

    Args:
        updates: each (out, in), equal shapes.
        smallest: directions with singular values up to this are dropped; at least the float32 rounding of all.
    """
    smallest = max(smallest, ROUNDING * norm_of(updates))
    rows, columns = updates[0].shape
    if rows <= columns * len(updates):
        gram = updates[0].new_zeros(rows, rows, dtype=torch.float64)
        for update in updates:
            gram += update.double() @ update.double().T
        squares, basis = _largest_first(gram, smallest)
        values = squares.sqrt()
        to_parts = (basis / values).T
        return Tied(basis, values, [_without_noise(to_parts @ update.double()) for update in updates])
    stacked = torch.cat([update.double() for update in updates], dim=1)
    squares, directions = _largest_first(stacked.T @ stacked, smallest)
    values = squares.sqrt()
    parts = [_without_noise(part.T) for part in directions.split(columns)]
    return Tied(stacked @ directions / values, values, parts)


def _largest_first(gram: torch.Tensor, smallest: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues above smallest², falling, and their vectors as columns."""
    squares, vectors = torch.linalg.eigh(gram)
    kept = squares > smallest**2
    return squares[kept].flip(0), vectors[:, kept].flip(1)


def tie_factors(factors: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Tied:
    """The common basis of low-rank updates D_i = B_i A_i, without making any D_i.

    [D_1 ... D_n] = [B_1 ... B_n] · diag(A_1 ... A_n). With QR of the stacked B and of each A_i^T, the SVD only sees a
    square matrix whose size is the sum of the ranks.

    Args:
        factors: (B, A) of shapes (out, r_i) and (r_i, in); r_i may be 0.
    """
    outer, core = torch.linalg.qr(torch.cat([left.double() for left, _ in factors], dim=1))
    inner = [torch.linalg.qr(right.double().T) for _, right in factors]
    core = core @ torch.block_diag(*(triangle.T for _, triangle in inner))
    left, values, right = torch.linalg.svd(core, full_matrices=False)
    kept = values > ROUNDING * norm_of([core])
    blocks = right[kept].split([frame.shape[1] for frame, _ in inner], dim=1)
    parts = [_without_noise(block @ frame.T) for block, (frame, _) in zip(blocks, inner, strict=True)]
    return Tied(outer @ left[:, kept], values[kept], parts)


def _without_noise(part: torch.Tensor) -> torch.Tensor:
    """A V_i^T in float32, with everything that is only rounding set to 0.

    A model that did not move must not count as agreeing: TIES divides by the weights of the models whose sign was
    elected, and noise has a sign, too.
    """
    return part.masked_fill(part.abs() < ROUNDING, 0.0).float()


def norm_of(tensors: Sequence[torch.Tensor]) -> float:
    """The Frobenius norm of all the tensors together."""
    return float(torch.stack([torch.linalg.norm(tensor, dtype=torch.float64) for tensor in tensors]).norm())
