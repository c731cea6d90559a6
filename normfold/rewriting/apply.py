"""Apply a plan: edit constants and attributes, compose and deposit affines, remove the site."""

from __future__ import annotations

import onnx_ir as ir

from normfold.evaluation.call import unrounded
from normfold.planning.crossing import Crossing
from normfold.planning.norm_affine import NormRelease
from normfold.planning.plan import Deposit, Plan, Use, Walk
from normfold.preparation.workspace import Workspace
from normfold.recognition.virtual import VirtualAffine, make_virtual, virtual
from normfold.rewriting.initializers import set_constant

_STEM = "normfold.stem"
_BIAS_SLOT = 2
# Far below the distance of two nodes, also of those that a merge of branches has placed.
_STEP = 1e-9


def apply_plan(plan: Plan, workspace: Workspace) -> list[ir.Node]:
    """Carry out a plan. Returns the virtual nodes that are new or changed, to be planned in turn."""
    changed: list[ir.Node] = []
    for walk in plan.walks:
        for node, crossing in walk.crossings.items():
            _edit(node, crossing, workspace)
        for node, affine in walk.composed.items():
            content = virtual(node)
            content.varied = content.varies or virtual(plan.site).varies
            content.affine, content.touched = affine, True
            content.records.extend(r for r in virtual(plan.site).records if r not in content.records)
            changed.append(node)
    old_names = {value: value.name for walk in plan.walks for value in walk.renamed}
    for value in old_names:
        value.name = _changed_name(value, workspace)
    x, y = plan.site.inputs[0], plan.site.outputs[0]
    assert x is not None
    meaning_of_y = x
    for walk in plan.walks:
        for deposit in _joined(walk.deposits) if walk.forward else walk.deposits:
            node = _put(deposit, plan, workspace)
            changed.append(node)
            output = node.outputs[0]
            if walk.forward:
                output.name = old_names[deposit.value]
            else:
                output.name = workspace.fresh_name(f"{deposit.value.name}_affine")
                if deposit.value is x:
                    meaning_of_y = output
    if plan.route.rest is None:
        _dissolve(
            plan.site,
            meaning_of_y,
            workspace,
            renames=plan.route.ahead is None and plan.route.aside is None,
        )
    else:
        content = virtual(plan.site)
        content.varied = content.varies
        content.affine, content.touched = plan.route.rest, True
        changed.append(plan.site)
        if plan.route.ahead is not None:
            y.name = _changed_name(y, workspace)
    return changed


def release_norm(release: NormRelease, workspace: Workspace) -> None:
    """Let the readers of a normalisation take its affine; the values on the way change their meaning."""
    for node, crossing in ((release.node, release.bare), *release.way.crossings.items()):
        _edit(node, crossing, workspace)
    for node, affine in release.way.composed.items():
        virtual(node).affine, virtual(node).touched = affine, True
    for value in (release.node.outputs[0], *release.way.renamed):
        value.name = _changed_name(value, workspace)


def drop_bias(node: ir.Node, way: Walk, workspace: Workspace) -> None:
    """Take the bias off a Conv, ConvTranspose or Gemm; the values on its way change their meaning."""
    node.resize_inputs(_BIAS_SLOT)
    for value in (node.outputs[0], *way.renamed):
        value.name = _changed_name(value, workspace)


def original_name(value: ir.Value) -> str:
    """The name that a value had in the original model, whatever it has come to mean since."""
    return str(value.meta.get(_STEM, value.name) or "")


def _changed_name(value: ir.Value, workspace: Workspace) -> str:
    """A name for a value whose meaning changes, perhaps not for the first time."""
    stem = value.meta.setdefault(_STEM, value.name)
    return workspace.fresh_name(f"{stem}_folded")


def _edit(node: ir.Node, crossing: Crossing, workspace: Workspace) -> None:
    for slot, constant in crossing.constants.items():
        set_constant(node, slot, constant, workspace)
    for name, value in crossing.attributes.items():
        if value is None:
            node.attributes.pop(name, None)
        elif isinstance(value, float):
            node.attributes[name] = unrounded(name, value)
        else:
            node.attributes[name] = ir.convenience.convert_attribute(name, value)
    if crossing.op_type is not None:
        node.op_type = crossing.op_type


def _joined(deposits: list[Deposit]) -> list[Deposit]:
    """One deposit for each value: several readers may have refused the same affine one by one."""
    joined: dict[ir.Value, Deposit] = {}
    for deposit in deposits:
        earlier = joined.get(deposit.value)
        uses = deposit.uses if earlier is None else tuple(dict.fromkeys((*earlier.uses, *deposit.uses)))
        joined[deposit.value] = Deposit(deposit.value, uses, deposit.affine)
    return list(joined.values())


def _put(deposit: Deposit, plan: Plan, workspace: Workspace) -> ir.Node:
    """A virtual node on ``deposit.value``; its readers in ``uses``, and the graph output if it is one, get
    the result."""
    source = deposit.value
    output = ir.Value(shape=source.shape, type=source.type)
    workspace.shapes.copy(source, output)
    site = virtual(plan.site)
    content = VirtualAffine(deposit.affine, records=list(site.records), touched=True, varied=site.varies)
    node = make_virtual(source, output, content)
    _insert(node, source, deposit.uses, workspace)
    graph = node.graph
    assert graph is not None
    if plan_changes(source, plan):
        for index, graph_output in enumerate(graph.outputs):
            if graph_output is source:
                graph.outputs[index] = output
    for reader, slot in deposit.uses:
        reader.replace_input_with(slot, output)
    return node


def plan_changes(value: ir.Value, plan: Plan) -> bool:
    """Whether the plan changes what ``value`` means."""
    return any(value in walk.renamed for walk in plan.walks)


def _insert(node: ir.Node, source: ir.Value, uses: tuple[Use, ...], workspace: Workspace) -> None:
    """Place the node in the graph of ``source``, where readers in bodies see it too: behind its producer, or
    for an input in front of the first reader."""
    producer = source.producer()
    if producer is not None:
        producer.append(node)
        workspace.place(node, workspace.position(producer) + _STEP)
        return
    graph = source.graph
    assert graph is not None
    own = [reader for reader, _ in uses if reader.graph is graph]
    first = min(own, key=workspace.position) if len(own) == len(uses) else graph[0]
    first.prepend(node)
    workspace.place(node, (workspace.position(first) - 1.0) / 2)


def _dissolve(site: ir.Node, survivor: ir.Value, workspace: Workspace, *, renames: bool) -> None:
    """Remove the site; its readers read ``survivor``, which takes over the site's name if it now means the
    same."""
    y = site.outputs[0]
    if y not in workspace.sealed:
        # A normalisation that ended in the site's affine ends in front of it now.
        workspace.sealed.discard(survivor)
    y.replace_all_uses_with(survivor, replace_graph_outputs=True)
    site.replace_input_with(0, None)
    graph = site.graph
    assert graph is not None
    graph.remove(site)
    if renames:
        survivor.name = y.name
        survivor.shape, survivor.type, survivor.doc_string = y.shape, y.type, y.doc_string
        survivor.metadata_props.update(y.metadata_props)
