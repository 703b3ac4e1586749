"""How are all eigenvalues of a large symmetric operator distributed?"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.stats import norm

from jaxdarts.curvature.hvp import ScalarFunction, hvp_function, is_scalar
from jaxdarts.curvature.lanczos import lanczos, ritz_pairs
from jaxdarts.curvature.pytrees import MatVec, PyTree, batched_map, check_positive, flat_vector
from jaxdarts.errors import InputError
from jaxdarts.values import number, whole

# The grid reaches this many sigma beyond the outermost nodes: less than 1e-6 of the mass is outside.
MARGIN = 5.0
# The default sigma, as a part of the spectrum's width.
RELATIVE_SIGMA = 0.01


class SpectralDensity(NamedTuple):
    """The distribution of eigenvalues, smoothed for a picture and as the quadrature it is made from."""

    grid: Array  # [grid_points], evenly spaced eigenvalues
    density: Array  # [grid_points], not negative; sum(density) * spacing = 1, each value the mean over its grid cell
    nodes: Array  # [num_probes, k] Ritz values of each probe, ascending; k = min(num_matvecs, n)
    weights: Array  # [num_probes, k], rows sum to 1; the mean over rows of sum(weights * g(nodes)) is about tr g(A) / n


def spectral_density(
    f: ScalarFunction | MatVec,
    x: PyTree | int,
    key: Array,
    num_matvecs: int = 32,
    num_probes: int = 8,
    grid_points: int = 512,
    sigma: float | Array | None = None,
    batch_size: int | None = 1,
) -> SpectralDensity:
    """The eigenvalue density of a Hessian, or of any symmetric operator, by stochastic Lanczos quadrature.

    Lin, Saad and Yang 2016, "Approximating spectral densities of large matrices", section 3.2.2; Ghorbani, Krishnan and
    Xiao 2019, "An investigation into neural net optimization via Hessian eigenvalue density", algorithm 2. Each random
    probe gives a Gauss quadrature, exact for polynomials up to degree 2 num_matvecs - 1 in that probe's own measure.

    Args:
        f: scalar function of one pytree, whose Hessian at `x` is meant; or a symmetric linear function from pytrees
            like `x` to pytrees like `x`, for instance `hvp_function(loss, params)`.
        x: where, a pytree of floating point arrays, n numbers in all. Of a linear function its values are not used, and
            n may stand for a flat vector.
        key: for the probes, whose entries are +1 or -1.
        num_matvecs: products per probe.
        num_probes: how many probes; the estimate's standard deviation falls as 1 / sqrt(num_probes n).
        grid_points: length of the grid, which reaches beyond the outermost Ritz values by 5 sigma.
        sigma: standard deviation of the Gaussian put on every Ritz value; None: a hundredth of the spectrum's width.
            Any positive value keeps the total at 1, since each grid cell holds its Gaussians' mass.
        batch_size: probes computed together; each holds k vectors of n numbers. None: all.

    Raises:
        InputError: a count below 1, fewer than two grid points, sigma not positive, `x` empty or not floating point, or
            `f` gives neither a scalar nor what looks like `x`.

    Cost: num_probes Lanczos runs. Works under jit and vmap.
    """
    for argument, value in (("num_matvecs", num_matvecs), ("num_probes", num_probes)):
        check_positive(argument, value)
    if batch_size is not None:
        check_positive("batch_size", batch_size)
    if (whole(grid_points) or 0) < 2:
        raise InputError(f"grid_points must be an integer of at least 2, not {grid_points!r}")
    if (fixed := number(sigma)) is not None and not fixed > 0:
        raise InputError(f"sigma must be positive, not {sigma!r}")
    if whole(x) is not None:
        x = jnp.zeros((check_positive("x (a dimension)", x),))
    flat, unravel = flat_vector("x", x)
    matvec = _operator(f, x)

    def quadrature(probe: Array) -> tuple[Array, Array]:
        nodes, coefficients = ritz_pairs(lanczos(matvec, unravel(probe), num_matvecs))
        return nodes, coefficients[0] ** 2

    probes = jax.random.rademacher(key, (num_probes, flat.size), flat.dtype)
    nodes, weights = batched_map(quadrature, probes, batch_size)
    grid, density = _smooth(nodes, weights, grid_points, sigma)
    return SpectralDensity(grid, density, nodes, weights)


def _operator(f: ScalarFunction | MatVec, x: PyTree) -> MatVec:
    if is_scalar(x):
        raise InputError("x must have an axis: at one number without, a function and a linear one look the same")
    found = jax.eval_shape(f, x)
    if is_scalar(found):
        return hvp_function(f, x)
    shapes, expected = (jax.tree.map(jnp.shape, tree) for tree in (found, x))
    if shapes != expected:
        raise InputError(
            f"f must return one scalar (a function whose Hessian is meant) or what looks like x (a linear function); "
            f"it returns shapes {shapes}, x has {expected}"
        )
    return f


def _smooth(nodes: Array, weights: Array, grid_points: int, sigma: float | Array | None) -> tuple[Array, Array]:
    low, high = jnp.min(nodes), jnp.max(nodes)
    if sigma is None:
        # A multiple of the identity has no width; then a part of its size, so that the grid has some.
        size = jnp.maximum(jnp.abs(low), jnp.abs(high))
        negligible = 100 * float(jnp.finfo(nodes.dtype).eps) * size
        width = jnp.where(high - low > negligible, high - low, jnp.where(size > 0, size, 1))
        sigma = RELATIVE_SIGMA * width
    low, high = low - MARGIN * sigma, high + MARGIN * sigma
    spacing = (high - low) / grid_points
    edges = low + spacing * jnp.arange(grid_points + 1, dtype=nodes.dtype)
    # One probe after the other: [grid_points, k] at a time.
    cumulative = jax.lax.map(
        lambda probe: jnp.sum(norm.cdf(edges[:, None], probe[0][None], sigma) * probe[1][None], axis=-1),
        (nodes, weights),
    )
    mass = jnp.maximum(jnp.diff(jnp.mean(cumulative, axis=0)), 0)  # the difference may be a rounding below 0
    return edges[:-1] + spacing / 2, mass / spacing
