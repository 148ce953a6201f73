"""The memory of `serve` stays within its weight and age, whatever is put there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from replicator.serve.cache import Cache
from tests.fakes.clock import FakeClock

STEPS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 12)), max_size=40)


@given(STEPS)
def test_weight_is_never_exceeded_and_the_latest_used_is_kept(steps: list[tuple[int, int]]) -> None:
    cache = Cache[int, int](10, 60, clock=FakeClock())
    model: dict[int, int] = {}  # key -> weight, the least lately used first
    for key, weight in steps:
        cache.put(key, weight, weight)
        model.pop(key, None)
        if weight <= 10:
            model[key] = weight
        while sum(model.values()) > 10:
            model.pop(next(iter(model)))
        for known in list(model):
            assert cache.get(known) == model[known]
            model[known] = model.pop(known)
        assert all(cache.get(other) is None for other in range(6) if other not in model)


def test_using_an_entry_does_not_prolong_it() -> None:
    clock = FakeClock()
    cache = Cache[str, str](10, 60, clock=clock)
    cache.put("a", "one")
    clock.advance(59.5)
    assert cache.get("a") == "one"
    clock.advance(0.5)
    assert cache.get("a") is None
    cache.put("a", "two")
    assert cache.get("a") == "two"
    cache.drop("a")
    cache.drop("a")
    assert cache.get("a") is None
