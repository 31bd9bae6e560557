"""A decoder's graph with its named adapters, each proven against transformers with that adapter in its weights."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import onnx_ir as ir

from model_store.export.hf import job as jobs
from model_store.export.hf.adapted import add_adapters
from model_store.export.hf.exported import Exported
from model_store.export.hf.job import Report
from model_store.export.hf.options import Options
from model_store.export.hf.proof import prove
from model_store.export.hf.stack import Stack, read_stacks
from model_store.export.parity import Figure
from model_store.export.witness import Witness


def with_adapters(
    right: Exported, graph: Exported, report: Report, options: Options, witness: Witness
) -> Exported:
    """`graph`, which is `right` or made from it by rounding, with the adapters, which are not rounded.

    Proven in `right`: each adapter in a batch of its own, then all and none in one. Raises ParityError.
    """
    folder = right.path.parent
    stacks = read_stacks(folder)
    adapted = _add(right, stacks)
    session = adapted.open()
    mixed = [jobs.read_references(folder)[0]]
    for place, name in enumerate(options.adapters, 1):
        witness.step(f"compare the adapter {name} with transformers")
        references = jobs.read_references(folder, place)
        prove(session, report, references, _named(name, witness), [place] * len(references))
        mixed.append(references[place % len(references)])
    witness.step("compare all adapters in one batch with transformers")
    prove(session, report, mixed, _named("mixed", witness), range(len(mixed)))
    return adapted if graph is right else _add(graph, stacks)


def _named(name: str, witness: Witness) -> Callable[[Figure], None]:
    return lambda figure: witness.figure(replace(figure, output=f"{name}: {figure.output}"))


def _add(graph: Exported, stacks: Mapping[str, Stack]) -> Exported:
    model = ir.load(graph.path)
    add_adapters(model, stacks, ir.DataType.FLOAT16 if graph.dtype == "float16" else ir.DataType.FLOAT)
    made = replace(graph, path=graph.path.parent / "adapted" / jobs.GRAPH, adapters=True)
    made.path.parent.mkdir()
    jobs.save_graph(model, made.path)
    return made
