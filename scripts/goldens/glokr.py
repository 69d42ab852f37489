"""GLoKr as docs/design defines it (algorithms.md 9): no library has it. Factors, weight change, and a module in lycoris-lora's manner for the peer trainer.

Files hold alpha and, for the halves a and b, glokr_<half>_w1 or _w1_a, _w1_b, and _w2 or _w2_a, _w2_b, [_t2].
"""

import math

import torch

from lycoris.functional.general import factorization
from lycoris.modules.base import LycorisBaseModule
from lycoris.wrapper import network_module_dict


def factor_shapes(shape, r: int, factor: int = -1, decompose_both=False, full_matrix=False, unbalanced=False, tucker=False) -> dict[str, tuple]:
    """Shapes of the factors of a weight by key, in the order of the file."""
    window = tuple(shape[2:])
    m, n = factorization(shape[1], factor)
    l, k = factorization(shape[0], factor)
    if unbalanced:
        l, k = k, l
    out = {}
    for half, rows, cols, tail in (("a", (m, n), (m, n), ()), ("b", (l, k), (m, n), window)):
        key = f"glokr_{half}_w"
        if decompose_both and r < max(rows[0], cols[0]) / 2 and not full_matrix:
            out |= {key + "1_a": (rows[0], r), key + "1_b": (r, cols[0])}
        else:
            out[key + "1"] = (rows[0], cols[0])
        if r >= max(rows[1], cols[1]) / 2 or full_matrix:
            out[key + "2"] = (rows[1], cols[1], *tail)
        elif tucker and any(k != 1 for k in tail):
            out |= {key + "2_a": (r, rows[1]), key + "2_b": (r, cols[1]), f"glokr_{half}_t2": (r, r, *tail)}
        else:
            out |= {key + "2_a": (rows[1], r), key + "2_b": (r, cols[1] * math.prod(tail))}
    return out


def half(f: dict, name: str, tail: tuple, scale: float) -> torch.Tensor:
    """One Kronecker product [rows, cols, pixels] of the factors f; scale counts where one of them is factored."""
    key, full = f"glokr_{name}_w", True
    w1 = f.get(key + "1")
    if w1 is None:
        w1, full = f[key + "1_a"] @ f[key + "1_b"], False
    w2 = f.get(key + "2")
    if w2 is None:
        full = False
        a, b, core = f[key + "2_a"], f[key + "2_b"], f.get(f"glokr_{name}_t2")
        w2 = torch.einsum("ijkl,ip,jq->pqkl", core, a, b) if core is not None else (a @ b).reshape(a.shape[0], -1, *tail)
    w2 = w2.reshape(*w2.shape[:2], -1)
    d = torch.einsum("ab,cdk->acbdk", w1, w2)
    d = d.reshape(d.shape[0] * d.shape[1], d.shape[2] * d.shape[3], -1)
    return d if full else d * scale


def delta(w: torch.Tensor, f: dict, scale: float) -> torch.Tensor:
    """W·A + B: dW[o,j,k] = sum_i W[o,i,k] A[i,j] + B[o,j,k]."""
    a, b = half(f, "a", (), scale).squeeze(-1), half(f, "b", tuple(w.shape[2:]), scale)
    return (torch.einsum("oik,ij->ojk", w.reshape(*w.shape[:2], -1), a) + b).reshape(w.shape)


class GlokrModule(LycorisBaseModule):
    """The rebuild form: base(x) + op(x, mu*dW)."""

    name = "glokr"

    def __init__(self, lora_name, org_module, multiplier=1.0, lora_dim=4, alpha=1, dropout=0.0, rank_dropout=0.0, module_dropout=0.0, use_tucker=False,
                 factor=-1, decompose_both=False, full_matrix=False, unbalanced_factorization=False, rs_lora=False, bypass_mode=None, **kwargs):
        super().__init__(lora_name, org_module, multiplier, dropout, rank_dropout, module_dropout, False, bypass_mode)
        shapes = factor_shapes(self.shape, lora_dim, factor, decompose_both, full_matrix, unbalanced_factorization, use_tucker)
        for key, shape in shapes.items():
            self.register_parameter(key, torch.nn.Parameter(torch.zeros(shape)))
        self.keys = list(shapes)
        self.lora_dim = lora_dim
        alpha = (alpha or lora_dim) if any(k.endswith(("_a", "_b")) for k in shapes) else lora_dim
        self.scale = alpha / (math.sqrt(lora_dim) if rs_lora else lora_dim)
        self.register_buffer("alpha", torch.tensor(float(self.scale * lora_dim)))

    def custom_state_dict(self):
        return {"alpha": self.alpha} | {k: getattr(self, k) for k in self.keys}

    def forward(self, x, *args, **kwargs):
        change = delta(self._current_weight(), {k: getattr(self, k) for k in self.keys}, self.scale)
        return self.org_forward(x, *args, **kwargs) + self.op(x, self.multiplier * change, None, **self.kw_dict)


network_module_dict["glokr"] = GlokrModule
