"""PET, evaluated for many turned copies of one structure: what the copies share is worked out once.

The network is that of S. Pozdnyakov, M. Ceriotti, NeurIPS 36 (2023), arXiv 2305.19302, as metatrain exports it. Its own
evaluation makes the layout of tokens anew for every copy, pads every atom to the largest number of neighbors, and
takes the general path of attention, since its mask has a gradient. Here

- the layout, species embeddings and the pairs of edges that answer each other are those of the structure;
- atoms are put into a few groups by their number of neighbors, and padded within their group only;
- linear maps that follow each other are one: of the first layer nothing is left but a map of (x, y, z, r);
- attention is a bias on the scores, with a backward pass of six products of small matrices;
- derivatives end at the edge vectors; forces and virials follow from them by one sparse product for all copies.

The weights are the model's own. Whoever uses this compares it with the model first: see ``MetatomicPotential``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from torch.nn import functional as nn

# Groups of atoms with a similar number of neighbors: each has attention matrices of its own size.
_GROUPS = 4
_SMALLEST_GROUP = 16


class Group(NamedTuple):
    """Atoms whose tokens are padded alike: ``atoms`` of them from token ``start`` on, ``slots`` tokens each."""

    start: int
    atoms: int
    slots: int

    @property
    def part(self) -> slice:
        return slice(self.start, self.start + self.atoms * self.slots)


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a structure are; the first of an atom's is its own, the others are its edges.

    Attributes
    ----------
    groups
        Of atoms; tokens 0 … R of all groups follow each other.
    atoms : (N,)
        The atoms in the order of the groups.
    nodes : (N,)
        The own tokens of the atoms, in that order.
    edges : (E,)
        The token of every pair of the neighbor list.
    reverse : (R,)
        The token of the edge that leads back; every other token is its own.
    species, neighbors : (N,), (R,)
        Index of the species of the atoms in the order of the groups, and of the atom at the other end of an edge.
    real : (R,)
        1 for edges, 0 for atoms and padding.
    padding : (R, 3)
        Vectors at the cutoff where there is no edge.
    ends : (N, E)
        Sparse: F = ends @ G sums derivatives by edge vectors into forces.
    """

    groups: Sequence[Group]
    atoms: torch.Tensor
    nodes: torch.Tensor
    edges: torch.Tensor
    reverse: torch.Tensor
    species: torch.Tensor
    neighbors: torch.Tensor
    real: torch.Tensor
    padding: torch.Tensor
    ends: csr_array

    @property
    def tokens(self) -> int:
        """R."""
        return len(self.reverse)


class Pet:
    """The energies of a PET and their derivatives by edge vectors.

    Parameters
    ----------
    module
        The PET within an exported model.
    energy
        The name of the output.

    Raises :class:`NotAPetError` if the module is not a PET in a form that is known here.
    """

    def __init__(self, module: Any, energy: str) -> None:
        try:
            self._read(module, energy)
        except (AttributeError, KeyError, RuntimeError, TypeError, IndexError) as error:
            raise NotAPetError(str(error)) from error

    def _read(self, module: Any, energy: str) -> None:
        kind = getattr(module, "original_name", type(module).__name__)  # TorchScript, or not
        if kind != "PET" or bool(module.long_range):
            raise NotAPetError("not a PET, or one with a long range")
        if len(list(module.additive_models.children())) != 1:
            raise NotAPetError("a PET with more added to it than energies of species")
        backend = module.backend
        if backend.num_neighbors_adaptive is not None or backend.system_conditioning is not None:
            raise NotAPetError("a PET with an adaptive cutoff or conditioned on the charge")
        self.cutoff, self.width = float(backend.cutoff), float(backend.cutoff_width)
        self._cut = {"bump": _bump, "cosine": _cosine}[backend.cutoff_function.lower()]
        self._weights = dict(backend.named_parameters())
        self._index = backend.species_to_species_index
        self._pre = {"PreLN": True, "PostLN": False}[backend.transformer_type]
        self._swiglu = {"swiglu": True, "silu": False}[backend.activation.lower()]
        self._feedforward = {"feedforward": True, "residual": False}[backend.featurizer_type]
        attention = _at(backend, "gnn_layers.0.trans.layers.0.attention")
        self._heads = int(attention.num_heads)
        self._scale = 1.0 / (float(attention.head_dim) ** 0.5 * float(attention.temperature))
        self._floor = float(attention.epsilon)
        self._layers = range(int(backend.num_gnn_layers))
        self._attentions = range(int(backend.num_attention_layers))
        self._energy = energy
        scales = module.scaler.model.scales[energy].blocks()
        if len(scales) != 1 or tuple(scales[0].values.shape) != (1, 1):
            raise NotAPetError("an energy that is scaled by species")
        self._unit = float(scales[0].values[0, 0])
        self._folded = [self._fold(layer) for layer in self._layers]

    # ---- layout ----------------------------------------------------------------------------------------------------

    def layout(self, numbers: np.ndarray, pairs: np.ndarray) -> Layout:
        """The layout of a structure with these atomic numbers (N,) and pairs (E, 5): i, j and the shift of the cell.

        The pairs must be a full list, every edge with the one that leads back.
        """
        device, count = self._index.device, len(numbers)
        degrees = np.bincount(pairs[:, 0], minlength=count)
        order = np.argsort(-degrees, kind="stable")
        number = max(1, min(_GROUPS, count // _SMALLEST_GROUP))
        groups, start = [], 0
        first = np.empty(count, dtype=np.int64)
        for members in np.array_split(order, number):
            slots = int(degrees[members].max(initial=0)) + 1
            groups.append(Group(start, len(members), slots))
            first[members] = start + slots * np.arange(len(members))
            start += slots * len(members)
        by_center = np.argsort(pairs[:, 0], kind="stable")
        within = np.empty(len(pairs), dtype=np.int64)
        within[by_center] = np.arange(len(pairs)) - np.repeat(np.cumsum(degrees) - degrees, degrees)
        edges = first[pairs[:, 0]] + 1 + within
        reverse, real = np.arange(start), np.zeros(start)
        reverse[edges] = edges[_answers(pairs)]
        real[edges] = 1.0
        neighbors = np.zeros(start, dtype=np.int64)
        neighbors[edges] = numbers[pairs[:, 1]]
        neighbors[neighbors == 0] = numbers[0] if count else 0
        padding = np.zeros((start, 3))
        padding[real == 0.0, 0] = self.cutoff
        rows = np.concatenate([pairs[:, 0], pairs[:, 1]])
        columns = np.tile(np.arange(len(pairs)), 2)
        ends = csr_array((np.repeat([1.0, -1.0], len(pairs)), (rows, columns)), shape=(count, len(pairs)))

        def moved(array: np.ndarray, dtype: torch.dtype = torch.int64) -> torch.Tensor:
            return torch.as_tensor(array, dtype=dtype).to(device)

        return Layout(
            groups=groups,
            atoms=moved(order),
            nodes=moved(first[order]),
            edges=moved(edges),
            reverse=moved(reverse),
            species=self._index[moved(numbers[order])],
            neighbors=self._index[moved(neighbors)],
            real=moved(real, self.dtype),
            padding=moved(padding, self.dtype),
            ends=ends,
        )

    @property
    def dtype(self) -> torch.dtype:
        return self._weights["edge_embedder.weight"].dtype

    # ---- evaluation ------------------------------------------------------------------------------------------------

    def __call__(self, layout: Layout, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Energies of the atoms (B, N) and derivatives by the edge vectors (B, E, 3) of B copies with these vectors."""
        tokens = layout.padding.expand(len(vectors), -1, -1).clone()
        tokens[:, layout.edges] = vectors
        with torch.enable_grad():
            tokens.requires_grad_(True)
            energies = self._energies(layout, tokens)
            (gradient,) = torch.autograd.grad(energies.sum(), tokens)
        ordered = torch.empty_like(energies)
        ordered[:, layout.atoms] = energies.detach()
        return self._unit * ordered, self._unit * gradient[:, layout.edges]

    def _energies(self, layout: Layout, vectors: torch.Tensor) -> torch.Tensor:
        """(B, N) in the order of the groups, from edge vectors at their tokens (B, R, 3)."""
        distances = vectors.square().sum(-1).add(1e-15).sqrt()
        cut = self._cut(distances, self.cutoff, self.width) * layout.real
        # An atom's own token has weight 1; padding has the least that the network knows.
        seen = cut.index_fill(1, layout.nodes, 1.0)
        bias = torch.log(seen.clamp(self._floor))
        geometry = torch.cat([vectors, distances[..., None]], dim=-1)
        nodes = self._embedding("node_embedders.0", layout.species).expand(len(vectors), -1, -1)
        messages: torch.Tensor | None = None
        total: torch.Tensor | None = None
        for layer in self._layers:
            if not self._feedforward:
                nodes = self._embedding(f"node_embedders.{layer}", layout.species).expand(len(vectors), -1, -1)
            nodes, edges = self._layer(layer, layout, nodes, geometry, bias, messages)
            back = edges.index_select(1, layout.reverse)
            # What a message starts from is the species at the other end.
            before = self._embedding("edge_embedder", layout.neighbors) if messages is None else messages
            if self._feedforward:
                messages = before + edges + self._combined(layer, edges, back)
            else:
                total = self._readout(layer, layout, nodes, edges, cut, total)
                messages = 0.5 * (before + back)
        if self._feedforward:
            assert messages is not None
            total = self._readout(0, layout, nodes, messages, cut, None)
        assert total is not None
        return total

    def _combined(self, layer: int, edges: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
        both = torch.cat([edges, back], dim=-1)
        both = nn.layer_norm(both, both.shape[-1:], *self._pair(f"combination_norms.{layer}"))
        return self._linear(f"combination_mlps.{layer}.2", nn.silu(self._linear(f"combination_mlps.{layer}.0", both)))

    def _layer(
        self,
        layer: int,
        layout: Layout,
        nodes: torch.Tensor,
        geometry: torch.Tensor,
        bias: torch.Tensor,
        messages: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        fold = self._folded[layer]
        hidden = nn.linear(geometry, fold.geometry) + fold.species[layout.neighbors]
        if messages is not None:
            hidden = hidden + nn.linear(messages, fold.messages)
        edges = self._linear(f"gnn_layers.{layer}.compress.2", nn.silu(hidden))
        for depth in self._attentions:
            step = self._before if self._pre else self._after
            nodes, edges = step(f"gnn_layers.{layer}.trans.layers.{depth}", layout, nodes, edges, bias)
        return nodes, edges

    def _before(
        self, at: str, layout: Layout, nodes: torch.Tensor, edges: torch.Tensor, bias: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A transformer layer that normalizes before attention."""
        tokens = edges.index_copy(1, layout.nodes, self._contracted(at, nodes))
        new = self._attention(at, layout, self._norm(f"{at}.norm_attention", tokens), bias)
        own = new.index_select(1, layout.nodes)
        edges = edges + new
        edges = edges + self._mlp(f"{at}.mlp", self._norm(f"{at}.norm_mlp", edges))
        return self._expanded(at, nodes, own), edges

    def _after(
        self, at: str, layout: Layout, nodes: torch.Tensor, edges: torch.Tensor, bias: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A transformer layer that normalizes after attention."""
        tokens = edges.index_copy(1, layout.nodes, self._contracted(at, nodes))
        tokens = self._norm(f"{at}.norm_attention", tokens + self._attention(at, layout, tokens, bias))
        tokens = self._norm(f"{at}.norm_mlp", tokens + self._mlp(f"{at}.mlp", tokens))
        return self._expanded(at, nodes, tokens.index_select(1, layout.nodes)), tokens

    def _contracted(self, at: str, nodes: torch.Tensor) -> torch.Tensor:
        contraction = f"{at}.center_contraction"
        return self._linear(contraction, nodes) if f"{contraction}.weight" in self._weights else nodes

    def _expanded(self, at: str, nodes: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        if f"{at}.center_expansion.weight" not in self._weights:
            return own
        nodes = nodes + self._linear(f"{at}.center_expansion", own)
        return nodes + self._mlp(f"{at}.center_mlp", self._norm(f"{at}.norm_center_features", nodes))

    def _attention(self, at: str, layout: Layout, tokens: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        stacked = self._linear(f"{at}.attention.input_linear", tokens)
        mixed = _Attention.apply(stacked, bias, layout.groups, self._heads, self._scale)
        return self._linear(f"{at}.attention.output_linear", mixed)

    def _readout(
        self,
        layer: int,
        layout: Layout,
        nodes: torch.Tensor,
        edges: torch.Tensor,
        cut: torch.Tensor,
        total: torch.Tensor | None,
    ) -> torch.Tensor:
        own = self._head("node", layer, nodes)
        weighted = self._head("edge", layer, edges) * cut
        sums = [weighted[:, each.part].unflatten(1, (each.atoms, each.slots)).sum(-1) for each in layout.groups]
        energies = own + torch.cat(sums, dim=1)
        return energies if total is None else total + energies

    def _head(self, kind: str, layer: int, features: torch.Tensor) -> torch.Tensor:
        head, last = f"{kind}_heads.{self._energy}.{layer}", f"{kind}_last_layers.{self._energy}.{layer}"
        hidden = nn.silu(self._linear(f"{head}.0", features))
        hidden = nn.silu(self._linear(f"{head}.2", hidden))
        return self._linear(f"{last}.{self._energy}___0", hidden).squeeze(-1)

    # ---- weights ---------------------------------------------------------------------------------------------------

    def _fold(self, layer: int) -> _Folded:
        """compress.0 of [edge_embedder(x, y, z, r), species at the other end, messages], as a sum of maps."""
        at = f"gnn_layers.{layer}"
        weight, bias = (each.double() for each in self._pair(f"{at}.compress.0"))
        parts = weight.split(weight.shape[0], dim=1)
        embed, offset = (each.double() for each in self._pair(f"{at}.edge_embedder"))
        first = layer == 0
        table = self._weights["edge_embedder.weight" if first else f"{at}.neighbor_embedder.weight"].double()
        species = table @ parts[1].T + (parts[0] @ offset + bias)
        dtype = self.dtype
        return _Folded((parts[0] @ embed).to(dtype), species.to(dtype), parts[1 if first else 2].contiguous().to(dtype))

    def _pair(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        return self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]

    def _linear(self, name: str, values: torch.Tensor) -> torch.Tensor:
        return nn.linear(values, *self._pair(name))

    def _embedding(self, name: str, index: torch.Tensor) -> torch.Tensor:
        return self._weights[f"{name}.weight"][index]

    def _norm(self, name: str, values: torch.Tensor) -> torch.Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights.get(f"{name}.bias")
        if bias is None:
            return nn.rms_norm(values, weight.shape, weight)
        return nn.layer_norm(values, weight.shape, weight, bias)

    def _mlp(self, name: str, values: torch.Tensor) -> torch.Tensor:
        hidden = self._linear(f"{name}.w_in", values)
        hidden = nn.glu(hidden) if self._swiglu else nn.silu(hidden)
        return self._linear(f"{name}.w_out", hidden)


class NotAPetError(Exception):
    """A module that is not evaluated here."""


class _Folded(NamedTuple):
    geometry: torch.Tensor
    species: torch.Tensor
    messages: torch.Tensor


class _Attention(torch.autograd.Function):
    """softmax(scale q kᵀ + bias) v for each group and head, with the bias one number a key.

    ``stacked`` (B, R, 3 D) holds q, k and v, ``bias`` is (B, R), the result (B, R, D).
    """

    @staticmethod
    def forward(
        ctx: Any, stacked: torch.Tensor, bias: torch.Tensor, groups: Sequence[Group], heads: int, scale: float
    ) -> torch.Tensor:
        copies, tokens, width = stacked.shape
        result = stacked.new_empty((copies, tokens, width // 3))
        saved = []
        for group in groups:
            q, k, v = _by_head(stacked, group, heads, 3)
            keys = bias[:, group.part].reshape(-1, 1, 1, group.slots).expand(-1, heads, 1, -1)
            scores = torch.baddbmm(keys.reshape(-1, 1, group.slots), q, k.transpose(1, 2), alpha=scale)
            weights = torch.softmax(scores, dim=-1)
            del scores
            _to_tokens(torch.bmm(weights, v), result, group, heads, 1)
            saved += [q, k, v, weights]
        ctx.save_for_backward(*saved)
        ctx.groups, ctx.heads, ctx.scale, ctx.shape = groups, heads, scale, stacked.shape
        return result

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad,) = upstream
        copies, tokens, _ = ctx.shape
        stacked, bias = grad.new_empty(ctx.shape), grad.new_empty((copies, tokens))
        for number, group in enumerate(ctx.groups):
            q, k, v, weights = ctx.saved_tensors[4 * number : 4 * number + 4]
            (back,) = _by_head(grad, group, ctx.heads, 1)
            inner = torch.bmm(back, v.transpose(1, 2))
            scores = torch._softmax_backward_data(inner, weights, -1, weights.dtype)
            parts = grad.new_empty((3, *q.shape))
            torch.bmm(weights.transpose(1, 2), back, out=parts[2])
            torch.bmm(scores, k, out=parts[0])
            torch.bmm(scores.transpose(1, 2), q, out=parts[1])
            parts[:2] *= ctx.scale
            _to_tokens(parts, stacked, group, ctx.heads, 3)
            summed = scores.sum(1).reshape(copies, group.atoms, ctx.heads, group.slots).sum(2)
            bias[:, group.part] = summed.reshape(copies, -1)
        return stacked, bias, None, None, None


def _by_head(tokens: torch.Tensor, group: Group, heads: int, parts: int) -> torch.Tensor:
    """(B, R, parts D) → (parts, B n heads, slots, D / heads) of one group."""
    split = tokens[:, group.part].reshape(len(tokens), group.atoms, group.slots, parts, heads, -1)
    return split.permute(3, 0, 1, 4, 2, 5).reshape(parts, -1, group.slots, split.shape[-1])


def _to_tokens(values: torch.Tensor, tokens: torch.Tensor, group: Group, heads: int, parts: int) -> None:
    """The other way round, into a part of ``tokens``."""
    split = values.reshape(parts, len(tokens), group.atoms, heads, group.slots, -1)
    tokens[:, group.part] = split.permute(1, 2, 4, 0, 3, 5).reshape(len(tokens), group.atoms * group.slots, -1)


def _bump(distances: torch.Tensor, cutoff: float, width: float) -> torch.Tensor:
    scaled = ((distances - (cutoff - width)) / width).clamp(1e-6, 1.0 - 1e-6)
    return 0.5 * (1.0 + torch.tanh(1.0 / torch.tan(torch.pi * scaled)))


def _cosine(distances: torch.Tensor, cutoff: float, width: float) -> torch.Tensor:
    scaled = ((distances - (cutoff - width)) / width).clamp(0.0, 1.0)
    return 0.5 * (1.0 + torch.cos(torch.pi * scaled))


def _answers(pairs: np.ndarray) -> np.ndarray:
    """For every pair (i, j, S) the place of (j, i, −S)."""
    back = np.column_stack([pairs[:, 1], pairs[:, 0], -pairs[:, 2:]])
    here, there = np.lexsort(pairs.T[::-1]), np.lexsort(back.T[::-1])
    if not np.array_equal(pairs[here], back[there]):
        raise ValueError("the neighbor list does not hold every pair in both directions")
    places = np.empty(len(pairs), dtype=np.int64)
    places[there] = here
    return places


def _at(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name)
    return module
