"""Random workflows and random but consistent news about their jobs."""

from __future__ import annotations

from hypothesis import strategies as st

from scheduler.core.specs import Dependency, DependencyKind, DependencyMap, Function, Output, StepSpec, WorkflowSpec


def payload(**arguments):
    return arguments


@st.composite
def workflows(draw, max_steps=6):
    """Sound workflows: every edge goes from an earlier to a later step, the last step merges everything open."""
    count = draw(st.integers(1, max_steps))
    fans = [draw(st.booleans()) for _ in range(count - 1)] + [False]
    steps = []
    for index in range(count):
        parents = draw(st.sets(st.integers(0, index - 1), max_size=3)) if index else set()
        steps.append(_step(draw, index, sorted(parents), fans))
    shuffled = draw(st.permutations(steps))
    points = {"p": (1, 2, 3)} if any(fans) else {}
    return WorkflowSpec(tuple(shuffled), f"s{count - 1}", points)


def _step(draw, index, parents, fans):
    dependencies = tuple(
        Dependency(
            parent=f"s{parent}",
            kind=draw(st.sampled_from(DependencyKind)),
            mapping=DependencyMap.ALL2ONE if fans[parent] and not fans[index] else draw(st.sampled_from(DependencyMap)),
        )
        for parent in parents
    )
    return StepSpec(
        name=f"s{index}",
        payload=Function(payload),
        runner=draw(st.sampled_from(["a", "b"])),
        dependencies=dependencies,
        fans_out=fans[index],
        output=Output(f"user.x.s{index}", "out.txt"),
    )
