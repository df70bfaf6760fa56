"""A JAX function as an ONNX graph: `to_onnx`.

The function is traced, its parameters known, and the equations of its jaxpr become ONNX nodes one
by one. That is done here and not by a library: our networks consist of two dozen operations.
jax2onnx 0.17 (Apache-2.0) knows all of JAX's, but does not install beside the orbax-checkpoint that
checkpoints are written with (it wants one before 0.11.37), and brings a dozen packages more.

- What depends on parameters alone is computed here and becomes a constant.
- Axes are moved as late as can be. JAX's pictures are NHWC and ONNX convolves NCHW: a value knows
  in which order its axes lie, and is transposed only where an operation needs another order. So a
  network has a handful of transposes, at its ends and beside its dense layers.
- Pictures do not see each other: one is traced, and the first axis stays free.
- An operation that is not known here is an error; none is left out.
- Opset 12 is DeepFaceLab's own; with IR version 7 it is read by runtimes from 2020 to today.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal
from onnx import helper, numpy_helper

OPSET, IR_VERSION = 12, 7
FREE = "N"  # the size of an input's first axis that may be any
NCHW = (0, 3, 1, 2)  # JAX's axes in ONNX's order for pictures
OIHW = (3, 2, 0, 1)  # likewise for kernels
FLOAT32, FLOAT16, BOOL = np.dtype(np.float32), np.dtype(np.float16), np.dtype(bool)
FLOATS = {FLOAT32, FLOAT16}
ELEMENTWISE = {
    "add": "Add",
    "mul": "Mul",
    "div": "Div",
    "cos": "Cos",
    "logistic": "Sigmoid",
    "lt": "Less",
    "select_n": "Where",
}
# With `half` a convolution makes float16, and these keep it; all else asks for float32.
KEEP_HALF = {"LeakyRelu", "Add", "Mul", "Cos", "DepthToSpace", "Concat", "Slice", "Transpose"}
KEEP_HALF |= {"Reshape", "Expand"}


@dataclass(frozen=True)
class Tensor:
    """A value that is known only when the graph runs.

    `shape` is in JAX's order of axes; axis i of the ONNX tensor is JAX's `axes[i]`. A size of 1 may
    stand for any size that what follows broadcasts it to; of the first axis it is the free size.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    axes: tuple[int, ...]


Value = Tensor | np.ndarray  # an array is known while the graph is made


def to_onnx(
    function: Callable[..., Sequence[jax.Array]],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Sequence[str],
    *,
    half: bool = False,
) -> onnx.ModelProto:
    """The ONNX model of a `function` that takes and returns float32 arrays.

    Args:
      function: pure, its parameters bound to it.
      inputs: {name: shape}, in the order of its arguments; the first size may be FREE.
      outputs: the names of what it returns; the first size of each is FREE.
      half: convolutions and what is between them compute in float16. Weights of dense layers are
        stored in float16 and computed with in float32, as is all else.

    Raises NotImplementedError for an operation that is not known here.
    """
    shapes = [tuple(1 if size == FREE else size for size in shape) for shape in inputs.values()]
    jaxpr = jax.make_jaxpr(function)(*map(jnp.zeros, shapes))
    graph = _Graph(half)
    given = [
        Tensor(name, shape, FLOAT32, tuple(range(len(shape))))
        for name, shape in zip(inputs, shapes, strict=True)
    ]
    for name, value, aval in zip(outputs, graph.run(jaxpr, given), jaxpr.out_avals, strict=True):
        graph.add("Identity", [graph.whole(value, aval.shape)], aval.shape, name=name)

    def described(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    made = [(FREE, *aval.shape[1:]) for aval in jaxpr.out_avals]
    nodes, constants = graph.needed_for(outputs)
    described_graph = helper.make_graph(
        nodes,
        "swap",
        [described(name, shape) for name, shape in inputs.items()],
        [described(name, shape) for name, shape in zip(outputs, made, strict=True)],
        constants,
    )
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(described_graph, opset_imports=[opset], ir_version=IR_VERSION)


@dataclass(frozen=True)
class _Node:
    op: str
    inputs: list[Value]
    attributes: dict[str, Any]


@dataclass
class _Graph:
    """The graph while it is made. `half` is that of `to_onnx`."""

    half: bool
    nodes: dict[str, _Node] = field(default_factory=dict)  # by output, each after its inputs

    def run(self, jaxpr: ClosedJaxpr, args: Sequence[Value]) -> list[Value]:
        """What `jaxpr` returns for `args`; the nodes of its equations are added."""
        inner = jaxpr.jaxpr
        known = dict(zip(inner.constvars, map(np.asarray, jaxpr.consts), strict=True))
        known |= dict(zip(inner.invars, args, strict=True))

        def read(var: Any) -> Value:
            return np.asarray(var.val, var.aval.dtype) if isinstance(var, Literal) else known[var]

        for eqn in inner.eqns:
            found = self.equation(eqn, [read(var) for var in eqn.invars])
            known |= dict(zip(eqn.outvars, found, strict=True))
        return [read(var) for var in inner.outvars]

    def equation(self, eqn: JaxprEqn, args: list[Value]) -> list[Value]:
        """What the equation `eqn` makes of `args`."""
        kind, params, shape = eqn.primitive.name, eqn.params, eqn.outvars[0].aval.shape
        shapes = [var.aval.shape for var in eqn.invars]

        # ---- Functions in functions, and what does not depend on an input ----

        if kind == "jit" and params["name"] not in ("leaky_relu", "depth_to_space"):
            return self.run(params["jaxpr"], args)
        if kind == "broadcast_in_dim":  # stays small until something needs it `whole`
            small = [1] * len(shape)
            for axis, size in zip(params["broadcast_dimensions"], args[0].shape, strict=True):
                small[axis] = size
            return [self.reshaped(args[0], tuple(small))]
        if all(isinstance(arg, np.ndarray) for arg in args):
            known = [np.broadcast_to(arg, size) for arg, size in zip(args, shapes, strict=True)]
            found = eqn.primitive.bind(*known, **params)
            return [np.asarray(a) for a in (found if eqn.primitive.multiple_results else [found])]

        x = args[0]
        match kind:
            # ---- Layers ----

            case "conv_general_dilated" if _is_plain(params):
                found = self.add(
                    "Conv",
                    [self.whole(x, shapes[0], NCHW), args[1].transpose(OIHW)],
                    shape,
                    NCHW,
                    pads=[pad[end] for end in (0, 1) for pad in params["padding"]],
                    strides=list(params["window_strides"]),
                )
            case "dot_general" if params["dimension_numbers"] == (((1,), (0,)), ((), ())):
                weights = args[1]
                if self.half:
                    weights = self.converted(weights.astype(FLOAT16), FLOAT32)
                found = self.add("Gemm", [self.whole(x, shapes[0]), weights], shape)
            case "add" if self.takes_bias(*args):
                layer = self.nodes[x.name]
                inputs = [*layer.inputs, args[1].reshape(-1)]  # the layer without one is left over
                found = self.add(layer.op, inputs, shape, x.axes, **layer.attributes)
            case "jit" if params["name"] == "leaky_relu":
                found = self.add("LeakyRelu", [x], x.shape, x.axes, alpha=float(args[1]))
            case "jit":
                x = self.whole(x, shapes[0], NCHW)
                found = self.add("DepthToSpace", [x], shape, NCHW, blocksize=2, mode="DCR")

            # ---- Arithmetic ----

            case _ if kind in ELEMENTWISE:
                if kind == "select_n":  # ONNX has the one for true first
                    args = [x, args[2], args[1]]
                found = self.elementwise(ELEMENTWISE[kind], args)
            case "integer_pow" if params["y"] == 2:
                x = self.cast(x, FLOAT32)  # squares are out of float16's range before their root is
                found = self.elementwise("Mul", [x, x])
            case "rsqrt":
                found = self.elementwise("Reciprocal", [self.elementwise("Sqrt", [x])])
            case "reduce_sum":
                axes = list(params["axes"])
                x = self.whole(x, shapes[0])
                found = self.add("ReduceSum", [x], shape, axes=axes, keepdims=0)
            case "convert_element_type":
                found = self.cast(x, np.dtype(params["new_dtype"]))

            # ---- Places ----

            case "reshape":
                found = self.reshaped(self.whole(x, shapes[0]), shape)
            case "transpose":
                order = params["permutation"]
                axes = tuple(order.index(axis) for axis in x.axes)
                found = replace(x, shape=tuple(x.shape[axis] for axis in order), axes=axes)
            case "rev":
                last = np.iinfo(np.int64).min
                cuts = [(axis, -1, last, -1) for axis in params["dimensions"]]
                found = self.sliced(self.whole(x, shapes[0], x.axes), shape, cuts)
            case "slice":
                steps = params["strides"] or (1,) * len(shape)
                cuts = zip(params["start_indices"], params["limit_indices"], steps, strict=True)
                cuts = [(axis, *cut) for axis, cut in enumerate(cuts) if axis > 0]
                found = self.sliced(self.whole(x, shapes[0], x.axes), shape, cuts)
            case "concatenate":
                axes = next(arg.axes for arg in args if isinstance(arg, Tensor))
                parts = [self.whole(*pair, axes) for pair in zip(args, shapes, strict=True)]
                axis = axes.index(params["dimension"])
                found = self.add("Concat", parts, shape, axes, axis=axis)
            case _:
                raise NotImplementedError(f"no ONNX operation is known for: {eqn}")
        return [found]

    # ---- Nodes ----

    def add(
        self,
        op: str,
        inputs: Sequence[Value],
        shape: Sequence[int],
        order: Sequence[int] | None = None,
        *,
        name: str | None = None,
        **attributes: Any,
    ) -> Tensor:
        """What a new node returns, of `shape`, with its axes in `order`; None: JAX's."""
        types = {value.dtype for value in inputs if isinstance(value, Tensor)} & FLOATS
        keeps = op in KEEP_HALF and types == {FLOAT16}
        wanted = FLOAT16 if self.half and (op == "Conv" or keeps) else FLOAT32
        inputs = [self.cast(value, wanted) if value.dtype in FLOATS else value for value in inputs]
        dtype = BOOL if op == "Less" else wanted if types else inputs[0].dtype
        return self.node(op, inputs, shape, dtype, order, name=name, **attributes)

    def node(
        self,
        op: str,
        inputs: Sequence[Value],
        shape: Sequence[int],
        dtype: np.dtype,
        order: Sequence[int] | None = None,
        *,
        name: str | None = None,
        **attributes: Any,
    ) -> Tensor:
        """As `add`, for inputs that are of the right types and give `dtype`."""
        name = name or f"{op}_{len(self.nodes)}"
        self.nodes[name] = _Node(op, list(inputs), attributes)
        axes = range(len(shape)) if order is None else order
        return Tensor(name, tuple(shape), dtype, tuple(axes))

    def takes_bias(self, x: Value, bias: Value) -> bool:
        """True when `x` comes of a layer without a bias, and `bias` is a number for each feature.

        The layer is then added again with it. The one without it is needed by nothing.
        """
        if not isinstance(x, Tensor) or not isinstance(bias, np.ndarray):
            return False
        layer = self.nodes.get(x.name)
        has_none = layer is not None and layer.op in ("Conv", "Gemm") and len(layer.inputs) == 2
        return has_none and bias.shape == (1,) * (len(x.shape) - 1) + x.shape[-1:]

    def elementwise(self, op: str, args: Sequence[Value]) -> Tensor:
        """`op` of values of one rank, which broadcast, and of single numbers."""
        tensors = [arg for arg in args if isinstance(arg, Tensor)]
        axes = max(tensors, key=lambda tensor: math.prod(tensor.shape)).axes
        shape = np.broadcast_shapes(*(arg.shape for arg in args))
        return self.add(
            op, [self.laid(arg, axes) if arg.shape else arg for arg in args], shape, axes
        )

    def sliced(
        self, x: Tensor, shape: Sequence[int], cuts: Sequence[tuple[int, int, int, int]]
    ) -> Tensor:
        """`x` cut to `shape`; `cuts` are (axis, start, end, step)."""
        axes, *ends = np.array(cuts, np.int64).T
        axes = np.array([x.axes.index(axis) for axis in axes], np.int64)
        starts, stops, steps = ends
        return self.add("Slice", [x, starts, stops, axes, steps], shape, x.axes)

    def reshaped(self, x: Value, shape: tuple[int, ...]) -> Value:
        """`x` in `shape`, the first size of which is the free one of a tensor."""
        if x.shape == shape:
            return x
        if isinstance(x, np.ndarray):
            return x.reshape(shape)
        x = self.laid(x, tuple(range(len(x.shape))))
        return self.add("Reshape", [x, np.array([-1, *shape[1:]], np.int64)], shape)

    def whole(self, x: Value, shape: tuple[int, ...], axes: Sequence[int] | None = None) -> Value:
        """`x` broadcast to its `shape`, its axes as `axes`, or JAX's, say."""
        axes = tuple(range(len(shape)) if axes is None else axes)
        if x.shape != shape and isinstance(x, np.ndarray):
            x = np.broadcast_to(x, shape)
        x = self.laid(x, axes)
        if x.shape != shape:
            sizes = np.array([shape[axis] for axis in axes], np.int64)
            x = self.add("Expand", [x, sizes], shape, axes)
        return x

    def laid(self, x: Value, axes: tuple[int, ...]) -> Value:
        """`x` with its axes in the order `axes`."""
        if isinstance(x, np.ndarray):
            return x.transpose(axes)
        if x.axes == axes:
            return x
        order = [x.axes.index(axis) for axis in axes]
        return self.add("Transpose", [x], x.shape, axes, perm=order)

    def cast(self, x: Value, dtype: np.dtype) -> Value:
        """`x` as `dtype`."""
        if x.dtype == dtype:
            return x
        if isinstance(x, np.ndarray):
            return x.astype(dtype)
        return self.converted(x, dtype)

    def converted(self, x: Value, dtype: np.dtype) -> Tensor:
        """`x`, even a known one, as `dtype` when the graph runs."""
        to = helper.np_dtype_to_tensor_dtype(dtype)
        return self.node("Cast", [x], x.shape, dtype, getattr(x, "axes", None), to=to)

    def needed_for(
        self, outputs: Sequence[str]
    ) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """(the nodes that `outputs` come of, in an order that can be run; their constants)."""
        nodes, constants, needed = [], [], set(outputs)
        for name, node in reversed(self.nodes.items()):
            if name not in needed:
                continue
            names = []
            for number, value in enumerate(node.inputs):
                if isinstance(value, Tensor):
                    names.append(value.name)
                    needed.add(value.name)
                else:
                    names.append(f"{name}_{number}")
                    array = np.ascontiguousarray(value)
                    constants.append(numpy_helper.from_array(array, names[-1]))
            nodes.append(helper.make_node(node.op, names, [name], name=name, **node.attributes))
        return nodes[::-1], constants[::-1]


def _is_plain(params: Mapping[str, Any]) -> bool:
    """True for a convolution of NHWC pictures without dilation and groups."""
    return (
        tuple(params["dimension_numbers"]) == (NCHW, OIHW, NCHW)
        and params["lhs_dilation"] == params["rhs_dilation"] == (1, 1)
        and params["feature_group_count"] == params["batch_group_count"] == 1
    )
