"""Equations 8 to 10 with full SVDs."""

import numpy as np


def plain_mso(first: np.ndarray, second: np.ndarray, eta: float) -> tuple[float, int, int]:
    """Return the overlap of the column spaces of two matrices at an energy level, and their numbers of modes."""
    bases = []
    for columns in (first, second):
        U, sigma, _ = np.linalg.svd(columns, full_matrices=False)
        share = np.cumsum(sigma**2) / np.sum(sigma**2)
        bases.append(U[:, : int(np.searchsorted(share, eta - 1e-12)) + 1])
    S = bases[0].T @ bases[1]
    return float((S**2).sum() / min(S.shape)), *S.shape
