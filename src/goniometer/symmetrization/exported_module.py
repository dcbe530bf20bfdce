"""The TorchScript module of an exported average: plain torch and metatomic, compiled into the file that holds it."""

# TorchScript, and metatomic's check of a module's signature, want the types of `typing`, as they are.
# ruff: noqa: B905, UP006, UP035, UP045

from typing import Dict, List, Optional, no_type_check

import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import ModelOutput, NeighborListOptions, System

from goniometer.potentials.batching import ATOMS_AT_ONCE


@no_type_check
class AveragedModule(torch.nn.Module):
    """The weighted mean of a model's back-rotated answers over elements of O(3), in memory that stays the same.

        E(x, h, d) = Ē + Σ (x − x̂)·G_x + Σ (h − ĥ)·G_h + Σ (d − d̂)·G_d

    for positions x, cell h and pair vectors d; hats mark the same numbers cut off from the graph, so that the value is
    the mean Ē = Σ_k w_k E(g_k·x), and the first derivatives are its gradient G = Σ_k w_k g_k⁻¹·∂E(g_k·x), both summed
    in float64 while one small batch of copies after the other is evaluated, differentiated and dropped. Second
    derivatives of E are lost. Energies atom by atom share the three correction terms of their structure equally: their
    sum has the right gradient, each alone has not. Non-conservative forces F(g) R and stresses Rᵀ S(g) R are averaged
    as numbers, without derivatives.

    Matrices (K, 3, 3) and weights (K,) are no buffers: they stay float64 whatever the model is converted to. An answer
    that is not finite is an error, which names the element of the rule.
    """

    _requested: List[NeighborListOptions]
    _elements: List[str]
    _energies: Dict[str, bool]
    _forces: List[str]
    _stresses: List[str]

    def __init__(
        self,
        module: torch.nn.Module,
        matrices: torch.Tensor,
        weights: torch.Tensor,
        elements: List[str],
        neighbor_lists: List[NeighborListOptions],
        energies: Dict[str, bool],
        forces: List[str],
        stresses: List[str],
        batch: int,
    ) -> None:
        """``elements`` are what errors call them, ``energies`` says of each whether it is known atom by atom.

        With ``batch`` 0, ``ATOMS_AT_ONCE`` holds.
        """
        super().__init__()
        self.module = module
        self._matrices, self._weights, self._elements = matrices, weights, elements
        self._requested = neighbor_lists
        self._energies, self._forces, self._stresses = energies, forces, stresses
        self._batch, self._atoms_at_once = batch, ATOMS_AT_ONCE

    @torch.jit.export
    def requested_neighbor_lists(self) -> List[NeighborListOptions]:
        """The pairs that the model itself asks for."""
        return self._requested

    def forward(
        self,
        systems: List[System],
        outputs: Dict[str, ModelOutput],
        selected_atoms: Optional[Labels],
    ) -> Dict[str, TensorMap]:
        """Averages for each system; of the selected atoms alone, if some are."""
        inner = self._inner_request(outputs)
        properties: Dict[str, Labels] = {}
        rows: Dict[str, List[torch.Tensor]] = {}
        samples: Dict[str, List[torch.Tensor]] = {}
        for name in outputs:
            rows[name] = torch.jit.annotate(List[torch.Tensor], [])
            samples[name] = torch.jit.annotate(List[torch.Tensor], [])
        for index, system in enumerate(systems):
            if len(system.known_data()) > 0:
                raise ValueError("this averaged model takes positions and cells alone, and a system holds further data")
            atoms = _atoms_of(system, index, selected_atoms)
            if len(atoms) == 0:
                continue
            means = self._means(_within_cutoff(system), atoms, selected_atoms is not None, inner, properties)
            where = torch.stack([torch.full_like(atoms, index), atoms], dim=1)
            for name, output in outputs.items():
                by_atom = output.sample_kind == "atom"
                rows[name].append(means[name] if by_atom else means[name].sum(dim=0, keepdim=True))
                samples[name].append(where if by_atom else where[:1, :1])
        if len(properties) == 0:
            # Nothing is wanted of any atom: the model knows how to say nothing.
            return self.module(systems, outputs, selected_atoms)
        results: Dict[str, TensorMap] = {}
        for name in outputs:
            values = torch.cat(rows[name]).to(systems[0].positions.dtype)
            results[name] = _labelled(values, torch.cat(samples[name]), properties[name])
        return results

    def _inner_request(self, outputs: Dict[str, ModelOutput]) -> Dict[str, ModelOutput]:
        """What the model is asked for: energies atom by atom if it has them, so that sums are taken in float64."""
        inner: Dict[str, ModelOutput] = {}
        for name, output in outputs.items():
            by_atom = name in self._forces
            if name in self._energies:
                by_atom = self._energies[name]
            elif not by_atom and name not in self._stresses:
                raise ValueError("this averaged model has no output '" + name + "'")
            if output.sample_kind == "atom" and not by_atom:
                raise ValueError("this averaged model does not know '" + name + "' atom by atom")
            inner[name] = ModelOutput(sample_kind="atom" if by_atom else "system")
        return inner

    def _means(
        self,
        system: System,
        atoms: torch.Tensor,
        selected: bool,
        inner: Dict[str, ModelOutput],
        properties: Dict[str, Labels],
    ) -> Dict[str, torch.Tensor]:
        """The means of one system, a row for each of ``atoms`` or one row; tells ``properties`` the model's labels."""
        # Apple's devices have no float64.
        wide = torch.float32 if system.device.type == "mps" else torch.float64
        matrices = self._matrices.to(device=system.device, dtype=wide)
        weights = self._weights.to(device=system.device, dtype=wide)
        differentiable = _differentiable(system)
        energies: List[str] = []
        for name in inner:
            if name in self._energies:
                energies.append(name)
        sums: Dict[str, torch.Tensor] = {}
        gradients: Dict[str, List[torch.Tensor]] = {}
        step = self._batch if self._batch > 0 else max(1, self._atoms_at_once // max(1, len(system)))
        for start in range(0, len(weights), step):
            turns, shares = matrices[start : start + step], weights[start : start + step]
            leaves = _turned_leaves(system, turns, differentiable)
            chosen = _of_copies(atoms, len(shares)) if selected else None
            answers = self.module(_copies(system, leaves, turns), inner, chosen)
            for name in inner:
                block = answers[name].block()
                properties[name] = block.properties
                odd = _not_finite(block)
                if odd >= 0:
                    what = name + " that is not finite, on a system of " + str(len(system)) + " atoms, at "
                    raise ValueError("the model that is averaged gave " + what + self._elements[start + odd])
                mean = self._mean(name, block, turns, shares, len(system))
                sums[name] = sums[name] + mean if name in sums else mean
            for name in energies:
                total = answers[name].block().values.sum()
                if total.requires_grad and differentiable:
                    kept = name != energies[-1]  # they share one graph
                    slopes = torch.autograd.grad([total], leaves, retain_graph=kept, allow_unused=True)
                    known = gradients[name] if name in gradients else _zeros(system, wide)
                    gradients[name] = _add_back(known, slopes, turns, shares, _handedness(system, turns))
        means: Dict[str, torch.Tensor] = {}
        for name, mean in sums.items():
            if inner[name].sample_kind == "atom":
                mean = mean.index_select(0, atoms.to(torch.long))
            if name in gradients:
                mean = mean + _correction(system, gradients[name]) / len(mean)
            means[name] = mean
        return means

    def _mean(
        self, name: str, block: TensorBlock, turns: torch.Tensor, shares: torch.Tensor, atoms: int
    ) -> torch.Tensor:
        """What a batch of answers adds to the mean: (N,) or (1,) energies, (N, 3, p) forces, (1, 3, 3, p) stresses."""
        values = block.values.detach().to(turns.dtype)
        if name in self._forces:
            return _weighted(_vectors_back(values, block.samples, turns), block.samples, shares, atoms)
        if name in self._stresses:
            return _weighted(_tensors_back(values, block.samples, turns), block.samples, shares, 1)
        return _weighted(values.squeeze(-1), block.samples, shares, atoms if self._energies[name] else 1)


@no_type_check
def _not_finite(block: TensorBlock) -> int:
    """The first copy whose answer is not finite, or −1."""
    finite = torch.isfinite(block.values.detach())
    if bool(finite.all()):
        return -1
    rows = torch.nonzero(~finite)[:, 0]
    return int(block.samples.column("system").index_select(0, rows).min())


@no_type_check
def _atoms_of(system: System, index: int, selected_atoms: Optional[Labels]) -> torch.Tensor:
    """The atoms of one system that are wanted, in the order asked for."""
    if selected_atoms is None:
        return torch.arange(len(system), dtype=torch.int32, device=system.device)
    values = selected_atoms.values
    return values[values[:, 0] == index, 1]


@no_type_check
def _of_copies(atoms: torch.Tensor, copies: int) -> Labels:
    """These atoms, in each of the copies."""
    copy = torch.arange(copies, dtype=torch.int32, device=atoms.device).repeat_interleave(len(atoms))
    return Labels(["system", "atom"], torch.stack([copy, atoms.repeat(copies)], dim=1), assume_unique=True)


@no_type_check
def _within_cutoff(system: System) -> System:
    """The system without the pairs that an engine may add beyond the cutoff: they would be turned for nothing."""
    trimmed = System(system.types, system.positions, system.cell, system.pbc)
    for options in system.known_neighbor_lists():
        pairs = system.get_neighbor_list(options)
        if not options.strict:
            lengths = torch.linalg.norm(pairs.values.detach().squeeze(-1), dim=1)
            kept = torch.nonzero(lengths < 1.0001 * options.cutoff).squeeze(-1)
            if len(kept) < len(lengths):
                samples = Labels(pairs.samples.names, pairs.samples.values[kept], assume_unique=True)
                pairs = TensorBlock(pairs.values[kept], samples, pairs.components, pairs.properties)
        trimmed.add_neighbor_list(options, pairs)
    return trimmed


@no_type_check
def _differentiable(system: System) -> bool:
    """Whether anyone could ask for a derivative."""
    wanted = system.positions.requires_grad or system.cell.requires_grad
    for options in system.known_neighbor_lists():
        wanted = wanted or system.get_neighbor_list(options).values.requires_grad
    return wanted and torch.is_grad_enabled()


@no_type_check
def _inputs(system: System) -> List[torch.Tensor]:
    """Positions, cell and pair vectors: (N, 3), (3, 3) and (P, 3) for each list."""
    inputs = [system.positions, system.cell]
    for options in system.known_neighbor_lists():
        inputs.append(system.get_neighbor_list(options).values.squeeze(-1))
    return inputs


@no_type_check
def _turned_leaves(system: System, turns: torch.Tensor, differentiable: bool) -> List[torch.Tensor]:
    """The inputs turned by each matrix, (B, …, 3), in float64 and rounded once; they begin a graph of their own."""
    leaves: List[torch.Tensor] = []
    for position, each in enumerate(_inputs(system)):
        turned = each.detach().to(turns.dtype).unsqueeze(0) @ turns.transpose(1, 2)
        if position == 1:  # the cell
            turned = turned * _handedness(system, turns)
        leaves.append(turned.to(each.dtype).detach().requires_grad_(differentiable))
    return leaves


@no_type_check
def _handedness(system: System, turns: torch.Tensor) -> torch.Tensor:
    """−1 where a rotated cell would be left-handed, 1 elsewhere, (B, 1, 1): its vectors are reversed.

    The lattice is the same, but many models take right-handed cells only.
    """
    cell = system.cell.detach().to(turns.dtype).cpu()
    volumes = torch.linalg.det(cell) * torch.linalg.det(turns.cpu())
    signs = torch.where(volumes < 0.0, -torch.ones_like(volumes), torch.ones_like(volumes))
    return signs.to(turns.device).reshape(-1, 1, 1)


@no_type_check
def _copies(system: System, leaves: List[torch.Tensor], turns: torch.Tensor) -> List[System]:
    """Systems of the rotated inputs: who sees whom does not change; cell shifts do with the sign of cell vectors."""
    copies: List[System] = []
    signs = _handedness(system, turns).cpu().reshape(-1)
    kept: List[Labels] = []
    mirrored: List[Labels] = []
    for options in system.known_neighbor_lists():
        samples = system.get_neighbor_list(options).samples
        columns = samples.values.clone()
        columns[:, 2:] = -columns[:, 2:]
        kept.append(samples)
        mirrored.append(Labels(samples.names, columns, assume_unique=True))
    for b in range(len(leaves[0])):
        copy = System(system.types, leaves[0][b], leaves[1][b], system.pbc)
        for position, options in enumerate(system.known_neighbor_lists()):
            pairs = system.get_neighbor_list(options)
            vectors = leaves[2 + position][b].unsqueeze(-1)
            samples = mirrored[position] if float(signs[b]) < 0.0 else kept[position]
            copy.add_neighbor_list(options, TensorBlock(vectors, samples, pairs.components, pairs.properties))
        copies.append(copy)
    return copies


@no_type_check
def _vectors_back(values: torch.Tensor, samples: Labels, turns: torch.Tensor) -> torch.Tensor:
    """F R for each row F, (n, 3, p)."""
    turn = turns.index_select(0, samples.column("system").to(torch.long))
    return turn.transpose(1, 2) @ values


@no_type_check
def _tensors_back(values: torch.Tensor, samples: Labels, turns: torch.Tensor) -> torch.Tensor:
    """Rᵀ S R for each row S, (n, 3, 3, p)."""
    turn = turns.index_select(0, samples.column("system").to(torch.long))
    return torch.einsum("nia,nijp,njb->nabp", [turn, values, turn])


@no_type_check
def _weighted(values: torch.Tensor, samples: Labels, shares: torch.Tensor, rows: int) -> torch.Tensor:
    """Σ_b w_b of the rows that are of the same atom, whatever their order; with one row, of the whole system."""
    share = shares.index_select(0, samples.column("system").to(torch.long))
    shape = [1] * values.dim()
    shape[0] = -1
    row = samples.column("atom").to(torch.long) if "atom" in samples.names else torch.zeros_like(share).to(torch.long)
    size = list(values.shape)
    size[0] = rows
    mean = torch.zeros(size, dtype=values.dtype, device=values.device)
    return mean.index_add(0, row, share.reshape(shape) * values)


@no_type_check
def _zeros(system: System, dtype: torch.dtype) -> List[torch.Tensor]:
    return [torch.zeros(each.shape, dtype=dtype, device=each.device) for each in _inputs(system)]


@no_type_check
def _add_back(
    known: List[torch.Tensor],
    slopes: List[Optional[torch.Tensor]],
    turns: torch.Tensor,
    shares: torch.Tensor,
    handedness: torch.Tensor,
) -> List[torch.Tensor]:
    """Adds Σ_b w_b G_b R_b: gradients by rotated inputs, as gradients by the inputs; −G_b of a reversed cell."""
    added: List[torch.Tensor] = []
    for position, total in enumerate(known):
        slope = slopes[position]
        if slope is not None:
            wide = slope.to(turns.dtype)
            if position == 1:  # the cell
                wide = wide * handedness
            total = total + (wide @ (shares.reshape(-1, 1, 1) * turns)).sum(dim=0)
        added.append(total)
    return added


@no_type_check
def _correction(system: System, gradients: List[torch.Tensor]) -> torch.Tensor:
    """Zero, with these gradients."""
    total = torch.zeros((), dtype=gradients[0].dtype, device=gradients[0].device)
    for each, gradient in zip(_inputs(system), gradients):
        total = total + ((each - each.detach()) * gradient.to(each.dtype)).sum()
    return total


@no_type_check
def _labelled(values: torch.Tensor, samples: torch.Tensor, properties: Labels) -> TensorMap:
    """Values (n, …, p) as the one block of a map: rows by system or atom, axes between by x, y and z."""
    names = ["system"] if samples.shape[1] == 1 else ["system", "atom"]
    axis = torch.arange(3, dtype=torch.int32, device=values.device).reshape(-1, 1)
    components: List[Labels] = []
    if values.dim() == 3:
        components = [Labels(["xyz"], axis)]
    elif values.dim() == 4:
        components = [Labels(["xyz_1"], axis), Labels(["xyz_2"], axis)]
    else:
        values = values.reshape(-1, 1)
    block = TensorBlock(values, Labels(names, samples, assume_unique=True), components, properties)
    return TensorMap(Labels(["_"], torch.zeros((1, 1), dtype=torch.int32, device=values.device)), [block])
