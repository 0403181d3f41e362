"""For any shape, dtype and sparsity: a pattern's mask is exact, fits its weight, and takes exactly what it should."""

import hypothesis.strategies as st
import torch
from hypothesis import given, settings

from pruneexp.masks import apply_masks_, count_to_prune, mask_gradients_, sparsity, zeros
from pruneexp.patterns import NM, Block, TensorGroup, Unstructured

DTYPES = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])
SHAPES = st.lists(st.integers(1, 9), min_size=2, max_size=4).map(tuple)


def weight_of(shape, dtype, seed) -> torch.Tensor:
    """Values of which many are equal or zero, as after pruning in half precision."""
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def mask_of(pattern, weight, share) -> torch.Tensor:
    group = TensorGroup("w", weight.shape, pattern)
    return group.masks(group.keep({"w": weight.abs()}, share))["w"].expand(weight.shape)


@given(SHAPES, DTYPES, st.floats(0, 1, exclude_max=True), st.integers(0, 9))
@settings(max_examples=200, deadline=None)
def test_single_weights_of_any_shape_and_dtype_are_pruned_to_the_weight(shape, dtype, share, seed):
    weight = weight_of(shape, dtype, seed)
    count = count_to_prune(share, weight.numel())
    if count == weight.numel():
        return  # a layer that would be emptied is for the budget to refuse
    mask = mask_of(Unstructured(), weight, count / weight.numel())
    assert mask.dtype == torch.bool
    assert int((~mask).sum()) == count
    if count > 0:
        assert weight.abs()[~mask].max() <= weight.abs()[mask].min()


@given(st.integers(1, 4), st.integers(1, 8), st.integers(1, 5), st.integers(1, 5), DTYPES, st.integers(0, 9))
@settings(max_examples=200, deadline=None)
def test_every_group_of_m_input_channels_keeps_n(n, m, outputs, groups, dtype, seed):
    if n > m:
        return
    weight = weight_of((outputs, groups * m, 3, 3), dtype, seed)
    mask = mask_of(NM(n=n, m=m, axis="input", indivisible="dense"), weight, 1 - n / m)
    kept = mask.unflatten(1, (groups, m)).sum(2)
    assert (kept == n).all()


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), DTYPES, st.floats(0, 0.99))
@settings(max_examples=200, deadline=None)
def test_blocks_go_whole_in_any_dtype(rows, columns, high, wide, dtype, share):
    weight = weight_of((rows * high, columns * wide), dtype, seed=1)
    count = count_to_prune(share, high * wide)
    if count == high * wide:
        return
    mask = mask_of(Block(rows=rows, columns=columns), weight, count / (high * wide))
    blocks = mask.unflatten(1, (wide, columns)).unflatten(0, (high, rows)).movedim(1, 2).flatten(2)
    assert (blocks.all(2) | ~blocks.any(2)).all()
    assert int((~blocks.any(2)).sum()) == count


@given(SHAPES, DTYPES, st.integers(0, 99), st.data())
@settings(max_examples=200, deadline=None)
def test_a_mask_takes_what_it_prunes_from_weight_and_gradient_and_nothing_else(shape, dtype, seed, data):
    """Also one that is broadcast over some of the weight's dimensions."""
    narrow = tuple(1 if data.draw(st.booleans()) else size for size in shape)
    mask = torch.rand(narrow, generator=torch.Generator().manual_seed(seed)) < 0.5
    weight = torch.nn.Parameter(weight_of(shape, dtype, seed))
    weight.grad = torch.ones_like(weight)
    before, whole = weight.detach().clone(), mask.expand(shape)
    apply_masks_({"w": weight}, {"w": mask})
    mask_gradients_({"w": weight}, {"w": mask})
    assert torch.equal(weight[whole], before[whole])
    assert not weight[~whole].any()
    assert torch.equal(weight.grad, whole.to(dtype))
    assert zeros({"w": mask}, {"w": weight}) == int((~whole).sum())
    assert sparsity({"w": mask}, {"w": weight}) == int((~whole).sum()) / weight.numel()
