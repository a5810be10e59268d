"""What is measured: the grid of the paper, and the products that no way of computing it can avoid."""

from material import PAIRS, STATE_SETS, TASKS, Shapes

BASES = ("top_k", "random_k", "random")
FRACTIONS = (0.01, 0.25, 0.5, 0.75, 0.99)
ETAS = (0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)
STATE_ETAS = (0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
PROMPTS = (1000, 5000, 20000)
SCHEMES = ("parallel", "orthogonal")
SEED = 0

PARTS = ("sweep", "mso", *(f"activations-{prompts}" for prompts in PROMPTS))


def prompts_of(part: str) -> int:
    """Return the number of prompts of an activation part."""
    return int(part.partition("-")[2])


def floor_flops(part: str, shapes: Shapes, layers: int) -> float:
    """Return the operations of the products that cannot be avoided.

    Sweep: for every tensor 15 products of 2 M N min(M, N): C of three tasks in two frames, and the kept parts of
    three tasks in three bases. MSO: three factorisations of one such product, one more where the tensor is tall, and
    three overlaps. Activations: the second moment of three sets, and three overlaps, for every state.
    """
    matrices = [shape for shape in shapes.tensors(layers).values() if len(shape) == 2]
    if part == "sweep":
        products = (2 + len(BASES)) * len(TASKS)
        return sum(products * 2.0 * M * N * min(M, N) for M, N in matrices)
    if part == "mso":
        factors = 3 * sum((2 if M > N else 1) * 2.0 * M * N * min(M, N) for M, N in matrices)
        return factors + len(PAIRS) * sum(2.0 * M * min(M, N) ** 2 for M, N in matrices)
    d = shapes.hidden
    return (layers + 1) * len(STATE_SETS) * (2.0 * d * d * prompts_of(part) + 2.0 * d**3)
