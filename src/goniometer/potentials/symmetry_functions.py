"""Energies, forces and virials of Behler-Parrinello networks, compiled by numba.

For an atom i and its neighbors within the cutoff r_c, with f(r) = tanh³(1 − r/r_c),

    radial      G = Σ_j exp(−η (r_ij − r_s)²) f(r_ij)
    angular     G = 2^{1−ζ} Σ_{j<k} (1 + λ cos θ_jik)^ζ exp(−η (r_ij² + r_ik² + r_jk²)) f(r_ij) f(r_ik) f(r_jk)

(J. Behler, J. Chem. Phys. 134, 074106 (2011), types 2 and 3). The energy of an atom is a small network of its scaled
G. Triples of an atom are kept until its network has been differentiated, so that no exponential is evaluated twice.
Importing this module imports numba.
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np

# Every fast-math flag but those that assume finite numbers: energies differ from those of exact IEEE order by rounding.
_compiled = numba.njit(cache=True, fastmath={"contract", "arcp", "nsz", "reassoc"})


@_compiled
@no_type_check
def _network(values, sizes, weights, gradient):
    """Energy of one atom and its derivatives by the inputs, into ``gradient``; hidden layers are tanh.

    ``weights`` holds, layer by layer, a matrix (inputs, outputs) and the biases.
    """
    layers = len(sizes) - 1
    widest = sizes.max()
    outputs = np.zeros((layers + 1, widest))
    outputs[0, : sizes[0]] = values
    start = 0
    for layer in range(layers):
        inputs, count = sizes[layer], sizes[layer + 1]
        for j in range(count):
            total = weights[start + inputs * count + j]
            for i in range(inputs):
                total += outputs[layer, i] * weights[start + i * count + j]
            outputs[layer + 1, j] = np.tanh(total) if layer < layers - 1 else total
        start += (inputs + 1) * count
    back, next_back = np.zeros(widest), np.zeros(widest)
    back[0] = 1.0
    for layer in range(layers - 1, -1, -1):
        inputs, count = sizes[layer], sizes[layer + 1]
        start -= (inputs + 1) * count
        if layer < layers - 1:
            for j in range(count):
                back[j] *= 1.0 - outputs[layer + 1, j] ** 2
        for i in range(inputs):
            total = 0.0
            for j in range(count):
                total += weights[start + i * count + j] * back[j]
            next_back[i] = total
        back, next_back = next_back, back
    gradient[:] = back[: sizes[0]]
    return outputs[layers, 0]


@_compiled
@no_type_check
def _power(base, exponent, whole):
    """base^exponent, by multiplication where ``whole`` is the exponent as an integer (−1 if it is none)."""
    if whole < 0:
        return base**exponent
    found = 1.0
    for _ in range(whole):
        found *= base
    return found


@_compiled
@no_type_check
def evaluate(
    species,
    neighbors,
    segments,
    edges,
    cutoff,
    radial_start,
    radial_eta,
    radial_shift,
    radial_column,
    eta_start,
    etas,
    function_start,
    function_lambda,
    function_zeta,
    function_whole,
    function_column,
    columns,
    scale_mean,
    scale_factor,
    sizes,
    weights,
    energies,
    forces,
    virial,
):
    """Add the energies (N,), forces (N, 3) and the virial (3, 3) of one structure to the arrays given last.

    ``segments`` (N, E + 1) tells where among ``neighbors`` and ``edges`` (from i to j) those of each element begin. The
    tables of functions are those of :class:`goniometer.potentials.nnp.Tables`. All in the units of the tables.
    """
    elements = segments.shape[1] - 1
    most = 0
    for atom in range(len(species)):
        most = max(most, segments[atom, elements] - segments[atom, 0])
    widest = 1
    for pair in range(len(eta_start) - 1):
        widest = max(widest, eta_start[pair + 1] - eta_start[pair])
    triples = most * (most - 1) // 2
    who = np.empty((triples, 3), dtype=np.int32)
    shape = np.empty((triples, 3))
    products = np.empty((triples, widest))
    distance, smooth, slope = np.empty(most), np.empty(most), np.empty(most)
    pulls = np.empty((most, 3))
    for atom in range(len(species)):
        kind = species[atom]
        begin, end = segments[atom, 0], segments[atom, elements]
        values = np.zeros(columns[kind])
        for n in range(begin, end):
            r = np.sqrt(edges[n, 0] ** 2 + edges[n, 1] ** 2 + edges[n, 2] ** 2)
            t = np.tanh(1.0 - r / cutoff)
            distance[n - begin], smooth[n - begin] = r, t**3
            slope[n - begin] = -3.0 * (1.0 - t * t) / (t * cutoff)  # f'/f
        for other in range(elements):
            place = kind * elements + other
            for n in range(segments[atom, other] - begin, segments[atom, other + 1] - begin):
                for f in range(radial_start[place], radial_start[place + 1]):
                    away = distance[n] - radial_shift[f]
                    values[radial_column[f]] += np.exp(-radial_eta[f] * away * away) * smooth[n]
        found = 0
        for first in range(elements):
            for second in range(first, elements):
                pair = (kind * elements + first) * elements + second
                if eta_start[pair] == eta_start[pair + 1]:
                    continue
                for a in range(segments[atom, first] - begin, segments[atom, first + 1] - begin):
                    from_b = a + 1 if first == second else segments[atom, second] - begin
                    for b in range(from_b, segments[atom, second + 1] - begin):
                        x = edges[begin + a, 0] - edges[begin + b, 0]
                        y = edges[begin + a, 1] - edges[begin + b, 1]
                        z = edges[begin + a, 2] - edges[begin + b, 2]
                        square = x * x + y * y + z * z
                        if square >= cutoff * cutoff:
                            continue
                        r = np.sqrt(square)
                        decay = np.exp(-2.0 * (1.0 - r / cutoff))
                        t = (1.0 - decay) / (1.0 + decay)
                        together = smooth[a] * smooth[b] * t * t * t
                        squares = distance[a] ** 2 + distance[b] ** 2
                        cosine = 0.5 * (squares - square) / (distance[a] * distance[b])
                        who[found, 0], who[found, 1], who[found, 2] = a, b, pair
                        shape[found, 0], shape[found, 1] = r, cosine
                        shape[found, 2] = -3.0 * (1.0 - t * t) / (t * cutoff)
                        for e in range(eta_start[pair], eta_start[pair + 1]):
                            product = np.exp(-etas[e] * (squares + square)) * together
                            products[found, e - eta_start[pair]] = product
                            for f in range(function_start[e], function_start[e + 1]):
                                angular = _power(
                                    0.5 * (1.0 + function_lambda[f] * cosine), function_zeta[f], function_whole[f]
                                )
                                values[function_column[f]] += 2.0 * angular * product
                        found += 1
        gradient = np.empty(columns[kind])
        inputs = (values - scale_mean[kind, : columns[kind]]) * scale_factor[kind, : columns[kind]]
        energies[atom] += _network(inputs, sizes[kind], weights[kind], gradient)
        gradient *= scale_factor[kind, : columns[kind]]
        pulls[: end - begin] = 0.0  # dE/d(edge)
        for other in range(elements):
            place = kind * elements + other
            for n in range(segments[atom, other] - begin, segments[atom, other + 1] - begin):
                total = 0.0
                for f in range(radial_start[place], radial_start[place + 1]):
                    away = distance[n] - radial_shift[f]
                    value = np.exp(-radial_eta[f] * away * away) * smooth[n]
                    total += gradient[radial_column[f]] * value * (slope[n] - 2.0 * radial_eta[f] * away)
                total /= distance[n]
                for axis in range(3):
                    pulls[n, axis] += total * edges[begin + n, axis]
        for triple in range(found):
            a, b, pair = who[triple, 0], who[triple, 1], who[triple, 2]
            r, cosine = shape[triple, 0], shape[triple, 1]
            plain, weighted, turning = 0.0, 0.0, 0.0
            for e in range(eta_start[pair], eta_start[pair + 1]):
                product = products[triple, e - eta_start[pair]]
                by_value, by_cosine = 0.0, 0.0
                for f in range(function_start[e], function_start[e + 1]):
                    base, whole = 0.5 * (1.0 + function_lambda[f] * cosine), function_whole[f]
                    factor = gradient[function_column[f]]
                    lower = _power(base, function_zeta[f] - 1.0, whole - 1 if whole > 0 else -1)
                    by_value += 2.0 * factor * lower * base
                    by_cosine += factor * function_zeta[f] * function_lambda[f] * lower
                plain += by_value * product
                weighted += by_value * product * etas[e]
                turning += by_cosine * product
            ra, rb = distance[a], distance[b]
            # cos θ = (r_a² + r_b² − r²)/(2 r_a r_b); derivatives by the lengths, over the lengths.
            by_a = (plain * slope[a]) / ra - 2.0 * weighted + turning * (1.0 / (ra * rb) - cosine / (ra * ra))
            by_b = (plain * slope[b]) / rb - 2.0 * weighted + turning * (1.0 / (ra * rb) - cosine / (rb * rb))
            by_r = (plain * shape[triple, 2]) / r - 2.0 * weighted - turning / (ra * rb)
            for axis in range(3):
                ea, eb = edges[begin + a, axis], edges[begin + b, axis]
                pulls[a, axis] += by_a * ea + by_r * (ea - eb)
                pulls[b, axis] += by_b * eb - by_r * (ea - eb)
        for n in range(end - begin):
            j = neighbors[begin + n]
            for axis in range(3):
                forces[j, axis] -= pulls[n, axis]
                forces[atom, axis] += pulls[n, axis]
                for other in range(3):
                    virial[other, axis] += edges[begin + n, other] * pulls[n, axis]
