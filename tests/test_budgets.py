import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from pruneexp.budgets import ERK, Global, OfRun, Uniform, whole_counts

BUDGETS = (Global(), Uniform(), ERK())


def scores(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {f"layer{i}": torch.rand(shape, generator=generator) for i, shape in enumerate(shapes)}


def test_global_by_hand():
    layers = {"a": torch.tensor([0.1, 0.2, 0.9]), "b": torch.tensor([0.3, 0.8, 0.7])}
    assert Global()(layers, 0.5) == {"a": 2 / 3, "b": 1 / 3}


def test_global_leaves_the_best_weight_of_a_weak_layer():
    layers = {"weak": torch.tensor([0.01, 0.02, 0.03]), "strong": torch.arange(1.0, 8.0)}
    budget = Global()(layers, 0.5)
    assert budget == {"weak": 2 / 3, "strong": 3 / 7}


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=8), min_size=1, max_size=5), st.floats(0, 0.9))
def test_global_with_ties_is_the_plain_order_in_which_the_first_of_equals_stay(values, sparsity):
    layers = {f"layer{i}": torch.tensor(layer, dtype=torch.float32) for i, layer in enumerate(values)}
    best = {(name, int(layer.argmax())) for name, layer in layers.items()}
    others = [(name, i) for name, layer in layers.items() for i in range(len(layer)) if (name, i) not in best]
    to_prune = round(sparsity * sum(map(len, values)))
    if to_prune > len(others):
        return
    order = sorted(reversed(others), key=lambda unit: layers[unit[0]][unit[1]])
    pruned = [name for name, _ in order[:to_prune]]
    expected = {name: pruned.count(name) / len(layer) for name, layer in layers.items()}
    assert Global()(layers, sparsity) == expected


def test_uniform_hands_out_the_rounding():
    budget = Uniform()(scores([(3,), (3,), (4,)]), 0.5)
    counts = [round(budget[f"layer{i}"] * n) for i, n in enumerate((3, 3, 4))]
    assert sum(counts) == 5
    assert all(abs(count - 0.5 * n) < 1 for count, n in zip(counts, (3, 3, 4), strict=True))


def test_erk_densities_follow_the_formula():
    layers = scores([(16, 16, 3, 3), (64, 64, 3, 3), (128, 128, 3, 3)])
    budget = ERK()(layers, 0.9)
    raw = {name: sum(layer.shape) / layer.numel() for name, layer in layers.items()}
    densities = {name: 1 - share for name, share in budget.items()}
    assert densities["layer1"] / densities["layer2"] == pytest.approx(raw["layer1"] / raw["layer2"], rel=1e-3)
    assert densities["layer0"] <= 1


def test_erk_keeps_small_layers_dense():
    budget = ERK()(scores([(2, 2), (100, 100)]), 0.5)
    assert budget["layer0"] == 0


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=6),
    st.floats(0, 0.98),
    st.sampled_from(BUDGETS),
    st.integers(0, 3),
)
@settings(max_examples=300, deadline=None)
def test_every_budget_meets_the_target_exactly_and_empties_no_layer(shapes, sparsity, budget, seed):
    layers = scores(shapes, seed)
    total = sum(layer.numel() for layer in layers.values())
    wanted = round(sparsity * total)
    if wanted > total - len(layers):
        with pytest.raises(ValueError, match="at least one has to stay in each"):
            budget(layers, sparsity)
        return
    shares = budget(layers, sparsity)
    counts = {name: round(shares[name] * layer.numel()) for name, layer in layers.items()}
    assert sum(counts.values()) == wanted
    assert all(0 <= counts[name] < layer.numel() for name, layer in layers.items())


def test_whole_counts_respect_limits():
    assert whole_counts({"a": 1.5, "b": 1.5}, {"a": 1, "b": 9}, 3) == {"a": 1, "b": 2}


def test_units_of_several_sizes_fill_the_target_with_what_fits():
    layers = {"small": torch.tensor([1.0, 5.0, 6.0, 7.0]), "large": torch.tensor([2.0, 3.0, 8.0])}
    sizes = {"small": 10, "large": 100}
    # 340 weights, 170 to go: the unit of score 1 (10), then 2 (100); 3 (100) is too large; 5 and 6 (10 each) fit
    assert Global()(layers, 0.5, sizes) == {"small": 3 / 4, "large": 1 / 3}
    assert Uniform()(layers, 0.5, sizes) == {"small": 2 / 4, "large": 2 / 3}


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 50)), min_size=1, max_size=6),
    st.floats(0, 0.9),
    st.integers(0, 3),
)
@settings(max_examples=200, deadline=None)
def test_a_global_budget_of_units_never_prunes_more_than_asked_for(units, sparsity, seed):
    layers = scores([(count,) for count, _ in units], seed)
    sizes = {f"layer{i}": size for i, (_, size) in enumerate(units)}
    total = sum(count * size for count, size in units)
    if total - round(sparsity * total) < sum(sizes.values()):
        return
    shares = Global()(layers, sparsity, sizes)
    counts = {name: round(shares[name] * layer.numel()) for name, layer in layers.items()}
    pruned = sum(counts[name] * sizes[name] for name in counts)
    assert pruned <= round(sparsity * total)
    left = [sizes[name] for name, layer in layers.items() if counts[name] < layer.numel() - 1]
    assert not left or pruned + min(left) > round(sparsity * total)  # nothing more would fit
    assert all(counts[name] < layer.numel() for name, layer in layers.items())


def test_erk_is_about_single_weights():
    with pytest.raises(ValueError, match="budget=erk: is defined for single weights"):
        ERK()(scores([(4,)]), 0.5, {"layer0": 9})


def test_budgets_of_a_run_are_scaled_to_the_target(tmp_path):
    masks = {"layer0": torch.arange(10) < 4, "layer1": torch.arange(20) < 2}  # keeps 6 of 30
    save_file(masks, tmp_path / "masks.safetensors")
    layers = scores([(10,), (20,)])
    assert OfRun(str(tmp_path))(layers, 0.8) == {"layer0": 6 / 10, "layer1": 18 / 20}
    assert OfRun(str(tmp_path))(layers, 0.9) == {"layer0": 8 / 10, "layer1": 19 / 20}


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        (None, "want the folder of a finished run"),
        ({"layer0": torch.ones(3, dtype=torch.bool)}, "has another layer0"),
        ({"other": torch.ones(3, dtype=torch.bool)}, "none of the prunable layers"),
    ],
)
def test_budgets_of_no_or_another_run_are_refused(masks, words, tmp_path):
    if masks:
        save_file(masks, tmp_path / "masks.safetensors")
    with pytest.raises(ValueError, match=words):
        OfRun(str(tmp_path))(scores([(10,), (20,)]), 0.5)
