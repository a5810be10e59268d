"""Slow twins of the geometry, from the paper's formulas with dense float64 matrices, and matrices to try them on."""

import torch


def gaussian(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def low_rank(M, N, r, seed=0):
    return gaussian(M, r, seed=seed) @ gaussian(r, N, seed=seed + 1)


def trained(M, N, seed=0):
    """A rank-16 part 30 times the edge of dense noise: the spectrum of a trained update."""
    edge = M**0.5 + N**0.5
    return 30 * edge / (M * N) ** 0.5 * low_rank(M, N, 16, seed=seed) + gaussian(M, N, seed=seed + 2)


def merged_lora(M, N, r=8, *, seed=0, entries=1e-3):
    """W + B A less W, both rounded to float32: rounding of W's last digit, about 1e-9, is dense noise."""
    W, BA = 0.02 * gaussian(M, N, seed=seed), entries / r**0.5 * low_rank(M, N, r, seed=seed + 1).double()
    return (W.double() + BA).float() - W


def decaying(M, N, r):
    """Singular values that fall evenly, in their logarithm, to the edge of the rank."""
    left, right = (torch.linalg.qr(gaussian(n, r, seed=n))[0] for n in (M, N))
    return left * torch.logspace(0, -5.9, r) @ right.T


def leaning(D, seed=0, share=0.5):
    """A task update of which a share follows D, whatever the scale of D."""
    task = gaussian(*D.shape, seed=seed)
    length = float(D.double().norm()) or 1.0
    return share * (D.double() * (float(task.double().norm()) / length)).float() + (1 - share) * task


def svd(D, tolerance=1e-6):
    """Left singular vectors and values in float64, cut at the rank."""
    left, sigma, _ = torch.linalg.svd(D.double(), full_matrices=False)
    rank = int((sigma > tolerance * sigma[0]).sum())
    return left[:, :rank], sigma[:rank]


def projector(U, k):
    return U[:, :k].double() @ U[:, :k].double().T


def energy(U, k, D):
    """|U_k U_k' D|^2, in float64."""
    return float((U[:, :k].double().T @ D.double()).square().sum())


def deviation(U):
    """Largest entry of |U'U - I|, in float64."""
    return float((U.double().T @ U.double() - torch.eye(U.shape[1])).abs().max()) if U.shape[1] else 0.0


def overlap(V, W, eta):
    """k_V, k_W, MSO and chance: equations 8 to 11, word for word."""
    spans = []
    for X in (V.double(), W.double()):
        left, sigma, _ = torch.linalg.svd(X, full_matrices=False)
        k = next(k for k in range(1, len(sigma) + 1) if sigma[:k].square().sum() >= eta * X.square().sum())
        spans.append(left[:, :k])
    k_V, k_W = (Q.shape[1] for Q in spans)
    return k_V, k_W, float((spans[0].T @ spans[1]).square().sum()) / min(k_V, k_W), max(k_V, k_W) / len(V)
