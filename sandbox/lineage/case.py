"""From a workflow to what the gate judges. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sandbox.language.workflow import Workflow, detours
from sandbox.lineage.types import Case, Dataset, Record, Relation, Student, Use


def case_of(workflow: Workflow, digests: Mapping[str, str], records: Iterable[Record]) -> Case:
    """Return the case of a workflow that has a student; a file that is not in `digests` could not be read.

    Every declared model counts, called or not: a fallback or a route may reach it.
    """
    spec = workflow.lineage
    if spec is None:
        raise ValueError(workflow.name)
    stages = {stage.name: (stage.needs, bool(stage.outputs)) for stage in workflow.stages}
    leading = leads_to_output(stages)
    # what writes may write through a fallback or a route, too, whatever else that model is declared for
    judging, writing = (
        {
            reached
            for stage in workflow.stages
            if (stage.name in leading) is leads
            for alias in stage.models
            for reached in detours(workflow, alias)
        }
        for leads in (False, True)
    )
    return Case(
        student=Student(model=spec.student.model, init_root=spec.student.init_root),
        uses=tuple(
            Use(
                model=model.model,
                relation=Relation.JUDGED_BY if alias in judging - writing else Relation.GENERATED_BY,
            )
            for alias, model in sorted(workflow.models.items())
        ),
        inputs=tuple(
            Dataset(path=item.path, digest=digests.get(item.path)) for _, item in sorted(workflow.inputs.items())
        ),
        datasets=tuple(Dataset(path=path, digest=digests.get(path)) for path in spec.datasets),
        records=tuple(records),
    )


def leads_to_output(stages: Mapping[str, tuple[list[str], bool]]) -> frozenset[str]:
    """Return the stages that propose an output or are needed, over however many steps, by one that does.

    `stages`: by name, what a stage needs and whether it proposes.
    """
    found: set[str] = set()
    ahead = [name for name, (_, proposes) in stages.items() if proposes]
    while ahead:
        name = ahead.pop()
        if name not in found and name in stages:
            found.add(name)
            ahead.extend(stages[name][0])
    return frozenset(found)
