"""The leading part of a matrix's spectrum."""

from __future__ import annotations

import torch
from scipy.linalg import eigh
from torch import Tensor


def leading(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """U (m, k), S (k,) and V (n, k) of the largest singular values of an (m, n) matrix, in float64 on the CPU.

    k is the rank that is asked for, or fewer, where the matrix has no more: values that the rounding of its type
    could have made are left out.
    """
    rounding = torch.finfo(matrix.dtype).eps ** 2
    matrix = matrix.double().cpu()
    flat = matrix.size(0) <= matrix.size(1)
    gram = matrix @ matrix.T if flat else matrix.T @ matrix
    size = len(gram)
    # LAPACK finds just the top r, in a quarter of the time of all.
    values, found = eigh(gram.numpy(), subset_by_index=[max(size - rank, 0), size - 1])
    square, vectors = torch.from_numpy(values[::-1].copy()), torch.from_numpy(found[:, ::-1].copy())
    there = square > size * max(rounding, torch.finfo(torch.float64).eps) * square[:1]
    singular, vectors = square[there].sqrt(), vectors[:, there]
    other = (matrix.T if flat else matrix) @ vectors / singular
    return (vectors, singular, other) if flat else (other, singular, vectors)
