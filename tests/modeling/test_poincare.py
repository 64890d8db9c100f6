"""The Poincaré ball, against the textbook formulas in 400 digits and against closed forms."""

import math

import mpmath
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from action_llm.poincare import exp0, log0, pairwise_tangent_distance, tangent_distance

NORMS = st.one_of(st.just(0.0), st.floats(1e-30, 1e30), st.floats(-30.0, 30.0).map(lambda exponent: 10.0**exponent))


def digits(vector: torch.Tensor) -> list[mpmath.mpf]:
    return [mpmath.mpf(float(value)) for value in vector]


def textbook_exp0(v, c):
    norm = mpmath.sqrt(mpmath.fsum(x * x for x in v))
    if norm == 0:
        return v
    return [mpmath.tanh(mpmath.sqrt(c) * norm) * x / (mpmath.sqrt(c) * norm) for x in v]


def textbook_log0(y, c):
    norm = mpmath.sqrt(mpmath.fsum(x * x for x in y))
    if norm == 0:
        return y
    return [mpmath.atanh(mpmath.sqrt(c) * norm) * x / (mpmath.sqrt(c) * norm) for x in y]


def textbook_distance(u, v, c=1):
    """Eq. 9 on the ball coordinates of Eq. 8, which 400 digits resolve up to tangent norms of 450."""
    with mpmath.workdps(400):
        c = mpmath.mpf(c)
        x, y = textbook_exp0(digits(u), c), textbook_exp0(digits(v), c)
        difference = mpmath.fsum((p - q) ** 2 for p, q in zip(x, y, strict=True))
        room = (1 - c * mpmath.fsum(p * p for p in x)) * (1 - c * mpmath.fsum(q * q for q in y))
        return float(mpmath.acosh(1 + 2 * c * difference / room) / mpmath.sqrt(c))


def vectors(norm: float, number: int, dim: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return norm * torch.nn.functional.normalize(torch.randn(number, dim, generator=generator), dim=-1)


@pytest.mark.parametrize("norm", [0.0, 1e-20, 1e-4, 0.3, 2.0, 7.0])
@pytest.mark.parametrize("curvature", [0.5, 1.0])
def test_maps_equal_the_textbook(norm, curvature):
    for v in vectors(norm, 3, 5, seed=0):
        ball = exp0(v.double(), curvature)
        with mpmath.workdps(400):
            expected = [float(x) for x in textbook_exp0(digits(v), curvature)]
            back = [float(x) for x in textbook_log0(digits(ball), curvature)]
        torch.testing.assert_close(ball, torch.tensor(expected, dtype=torch.float64), rtol=1e-13, atol=0)
        # artanh near 1 multiplies the relative error of the ball coordinates by up to sinh 2a / 2a.
        torch.testing.assert_close(log0(ball, curvature), torch.tensor(back, dtype=torch.float64), rtol=1e-9, atol=0)
        torch.testing.assert_close(exp0(v, curvature), ball.float(), rtol=1e-6, atol=0)


@given(norm=NORMS, seed=st.integers(0, 1000), curvature=st.sampled_from([0.25, 1.0, 4.0]))
def test_maps_stay_inside_the_ball_and_finite(norm, seed, curvature):
    v = vectors(norm, 4, 3, seed).requires_grad_()
    ball = exp0(v, curvature)
    assert (ball.double().norm(dim=-1) * math.sqrt(curvature) < 1).all()
    back = log0(ball, curvature)
    assert back.isfinite().all()
    if norm * math.sqrt(curvature) <= 4:
        torch.testing.assert_close(back, v, rtol=2e-4, atol=1e-30)
    back.sum().backward()
    assert v.grad.isfinite().all()


def test_log0_reads_the_boundary_as_the_last_point_inside():
    on_and_outside = torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    assert log0(on_and_outside).isfinite().all()


@pytest.mark.parametrize("norm", [1e-6, 0.1, 1.0, 5.0, 20.0, 100.0, 400.0])
def test_distance_equals_the_textbook(norm):
    u, v = vectors(norm, 4, 6, seed=1), vectors(0.8 * norm, 4, 6, seed=2)
    expected = torch.tensor([[textbook_distance(a, b) for b in v] for a in u], dtype=torch.float64)
    torch.testing.assert_close(tangent_distance(u[:, None].double(), v.double()), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(pairwise_tangent_distance(u.double(), v.double()), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(tangent_distance(u[:, None], v).double(), expected, rtol=2e-6, atol=0)
    torch.testing.assert_close(pairwise_tangent_distance(u, v).double(), expected, rtol=2e-6, atol=0)


@pytest.mark.parametrize("norm", [0.5, 3.0, 10.0])
def test_distance_of_nearly_equal_points_keeps_its_digits(norm):
    u = vectors(norm, 5, 4, seed=3)
    v = u + 1e-4 * norm * vectors(1.0, 5, 4, seed=4)
    expected = torch.tensor([textbook_distance(a, b) for a, b in zip(u, v, strict=True)], dtype=torch.float64)
    torch.testing.assert_close(tangent_distance(u.double(), v.double()), expected, rtol=1e-9, atol=0)
    # Unit vectors are rounded at 6e-8 of 1e-4.
    torch.testing.assert_close(tangent_distance(u, v).double(), expected, rtol=3e-3, atol=0)
    # The matrix product is a lower bound, and as close as its docstring says.
    too_low = expected - pairwise_tangent_distance(u, v).diagonal()
    assert (too_low > -1e-5 * expected).all()
    assert (too_low < 2 * math.asinh(math.sqrt(math.sinh(2.001 * norm) ** 2 * 4e-7))).all()


@pytest.mark.parametrize("norm", [0.01, 0.5, 2.0])
def test_distance_of_ball_coordinates_is_the_same(norm):
    u, v = vectors(norm, 6, 4, seed=5).double(), vectors(1.5 * norm, 6, 4, seed=6).double()
    x, y = exp0(u, 2.0), exp0(v, 2.0)
    # arcosh(1 + 2 |x - y|^2 / ((1 - |x|^2) (1 - |y|^2))) of the unit ball, Nickel and Kiela (2017), Eq. 1.
    x, y = math.sqrt(2.0) * x, math.sqrt(2.0) * y
    gap = (x - y).square().sum(-1) / ((1 - x.square().sum(-1)) * (1 - y.square().sum(-1)))
    expected = torch.acosh(1 + 2 * gap) / math.sqrt(2.0)
    torch.testing.assert_close(tangent_distance(u, v, 2.0), expected, rtol=1e-9, atol=0)


@given(first=NORMS, second=NORMS, seed=st.integers(0, 1000), dim=st.integers(1, 6))
@example(first=0.0, second=0.0, seed=0, dim=1)
@example(first=1e30, second=1e30, seed=0, dim=1)
@example(first=1e-30, second=1e30, seed=0, dim=2)
def test_distance_and_gradient_are_finite_at_any_norm(first, second, seed, dim):
    u = vectors(first, 3, dim, seed).requires_grad_()
    v = torch.cat([vectors(second, 2, dim, seed + 1), u.detach()[:1], torch.zeros(1, dim)]).requires_grad_()
    for distance in (pairwise_tangent_distance(u, v), tangent_distance(u[:, None], v)):
        assert distance.isfinite().all() and (distance >= 0).all()
        gradients = torch.autograd.grad(distance.sum(), (u, v))
        assert all(gradient.isfinite().all() for gradient in gradients)


@given(a=st.floats(1e-3, 1e3), b=st.floats(1e-3, 1e3), curvature=st.floats(0.01, 100.0))
def test_distances_along_a_line_through_the_origin(a, b, curvature):
    # exp₀ has unit speed in the metric of the tangent space at 0, which is 2 there: a geodesic through 0 measures 2‖v‖.
    axis = torch.nn.functional.normalize(torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64), dim=-1)
    same, opposite = tangent_distance(a * axis, b * axis, curvature), tangent_distance(a * axis, -b * axis, curvature)
    assert opposite.item() == pytest.approx(2 * (a + b), rel=1e-9)
    assert tangent_distance(a * axis, 0 * axis, curvature).item() == pytest.approx(2 * a, rel=1e-9)
    # Beyond √c‖v‖ = 13 even float64 cannot write two vectors so parallel that they count as being on one line: what the last
    # bit of a coordinate is worth grows with e^(2√c‖v‖), and is 2.3e-3 / √c at 14.2.
    if math.sqrt(curvature) * max(a, b) <= 13:
        assert same.item() == pytest.approx(2 * abs(a - b), rel=1e-6, abs=2e-3 / math.sqrt(curvature))


@given(seed=st.integers(0, 1000), norm=st.floats(0.01, 30.0), curvature=st.floats(0.01, 30.0))
def test_metric_axioms_and_scaling(seed, norm, curvature):
    x, y, z = vectors(norm, 3, 4, seed).double() * torch.rand(3, 1, generator=torch.Generator().manual_seed(seed))
    xy, yz, xz = (tangent_distance(p, q, curvature) for p, q in ((x, y), (y, z), (x, z)))
    torch.testing.assert_close(xy, tangent_distance(y, x, curvature))
    assert xz <= xy + yz + 1e-9
    scaled = tangent_distance(math.sqrt(curvature) * x, math.sqrt(curvature) * y) / math.sqrt(curvature)
    torch.testing.assert_close(xy, scaled, rtol=1e-9, atol=1e-12)


def test_small_curvature_is_twice_the_euclidean_distance():
    u, v = vectors(1.0, 5, 8, seed=8).double(), vectors(2.0, 7, 8, seed=9).double()
    torch.testing.assert_close(pairwise_tangent_distance(u, v, 1e-8), 2 * torch.cdist(u, v), rtol=1e-6, atol=0)


@pytest.mark.parametrize("norm", [1e-3, 0.5, 3.0, 10.0, 100.0])
def test_float32_gradient_equals_that_of_finite_differences(norm):
    u, v = vectors(norm, 2, 5, seed=10), vectors(0.7 * norm, 3, 5, seed=11)
    points = u.clone().requires_grad_()
    pairwise_tangent_distance(points, v).sum().backward()
    step = 1e-6 * norm
    for n in range(2):
        for d in range(5):
            shift = torch.zeros(2, 5, dtype=torch.float64)
            shift[n, d] = step
            ends = [tangent_distance((u + sign * shift)[:, None], v.double()).sum() for sign in (1, -1)]
            slope = ((ends[0] - ends[1]) / (2 * step)).item()
            assert points.grad[n, d].item() == pytest.approx(slope, rel=1e-4, abs=1e-4)


def test_gradient_at_the_origin_points_at_the_code():
    # d(0, v) falls fastest towards v, at the metric's rate of 2 per unit.
    origin, code = torch.zeros(1, 3, requires_grad=True), vectors(1.3, 1, 3, seed=12)
    pairwise_tangent_distance(origin, code).sum().backward()
    torch.testing.assert_close(origin.grad, -2 * torch.nn.functional.normalize(code, dim=-1), rtol=1e-4, atol=1e-5)
