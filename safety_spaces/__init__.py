"""Is safety held in a linear subspace of weights or activations that holds little else?

Shape letters, the same everywhere: M rows (outputs), N columns (inputs), k directions, r rank, d hidden size,
L layers, p prompts.
"""
