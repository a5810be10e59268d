"""AdamW in each number format and with each kind of state that a study can ask for.

All have equal betas, epsilon and weight decay; the trainer sets the learning rate and the groups without decay. In bf16
the second moment of `adamw` and `bf16_kahan` is rounded too, whatever becomes of the weights.
"""

import logging
import os
from typing import Any

import torch
from torch.optim import AdamW, Optimizer

from safety_spaces.errors import UserError
from safety_spaces.study import Training

BETAS = (0.9, 0.999)
EPSILON = 1e-8

SHARDED = "ACCELERATE_USE_FSDP"
"""Set by `accelerate launch` where the weights are shared out among the processes."""

logger = logging.getLogger(__name__)


def adamw(settings: Training, *, device: torch.device, processes: int = 1) -> tuple[type[Optimizer], dict[str, Any]]:
    """Return the class of a study's optimiser, and its options beside the parameters.

    Raises UserError when the state is to lie in the memory of the CPU and there is no GPU, or more than one process;
    or it is to have 8 bits and the weights are sharded.
    """
    kind, options = _kind(settings, device=device, processes=processes)
    if settings.precision == "bf16_kahan" and settings.weight_decay:
        # The decay multiplies the weights, outside of the compensated sum.
        logger.warning("training.weight_decay: bf16_kahan rounds it away; use bf16_stochastic or fp32 for weight decay")
    shared = {"lr": settings.learning_rate, "betas": BETAS, "eps": EPSILON, "weight_decay": settings.weight_decay}
    return kind, {**shared, **options}


def _kind(settings: Training, *, device: torch.device, processes: int) -> tuple[type[Optimizer], dict[str, Any]]:
    stochastic = {"bf16_stochastic_round": settings.precision == "bf16_stochastic"}
    match settings.optimizer, settings.precision:
        case "adamw_offload", _:
            return _offloaded(device, processes), {"optimizer_class": AdamW, "fused": True}
        case "adamw_8bit", _:
            if os.environ.get(SHARDED) == "true":
                raise UserError(
                    "training.optimizer: adamw_8bit cannot step weights that FSDP shards; use adamw with FSDP"
                )
            from torchao.optim import AdamW8bit

            return AdamW8bit, stochastic
        case _, "bf16_stochastic":
            # Without a public name: the same class with a state that is not quantised.
            from torchao.optim import _AdamW

            return _AdamW, stochastic
        case _, "bf16_kahan":
            from optimi import AdamW as KahanAdamW

            # The kernels of Triton round elsewhere than the plain sums and know no sharded weights.
            return KahanAdamW, {"kahan_sum": True, "triton": False, "foreach": False}
    return AdamW, {"fused": True}


def _offloaded(device: torch.device, processes: int) -> type[Optimizer]:
    if device.type != "cuda":
        raise UserError(f"training.optimizer: adamw_offload needs a CUDA device, got {device.type}; use adamw")
    if processes > 1:
        raise UserError(f"training.optimizer: adamw_offload runs in one process, got {processes}; use adamw with FSDP")
    from torchao.optim import CPUOffloadOptimizer

    class OffloadedAdamW(CPUOffloadOptimizer):  # type: ignore[misc]
        """Steps the gradients as they are when the step is taken: those sent during the backward are not clipped."""

        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            self.stream.synchronize()
            for weight, copy in self.param_d2h_map.items():
                if weight.grad is not None:
                    copy.grad.copy_(weight.grad)
            return super().step(closure)

    return OffloadedAdamW
