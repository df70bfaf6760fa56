"""convert.py with a DFM: ours comes back as it was, a stranger's is checked first."""

import logging
import os

import cv2
import jax
import numpy as np
import pytest
from workspaces import convert_workspace

from odfs_jax.config import compose
from odfs_jax.conversion.dfm import FACE, MORPH, OUTPUTS, SETTINGS, load_dfm
from odfs_jax.errors import UserError
from odfs_jax.faces.types import FaceType
from odfs_jax.interop.export import export

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402 there only with onnx


def exported(workspace, *settings):
    own = [f"workspace={workspace}", "hardware.compilation_cache=null"]
    export(compose("export", [*own, *settings]))


def test_an_exported_model_swaps_as_the_model_itself(workspace, capsys, caplog):
    """But for what a DFM does not say: where src's eyes are."""
    caplog.set_level(logging.INFO)
    exported(workspace)
    path = workspace / "tiny_full_32.dfm"
    assert "tiny_full_32.dfm: 0." in capsys.readouterr().out
    with pytest.raises(UserError, match=r"tiny_full_32.dfm: exists already; give another path="):
        exported(workspace)
    convert_workspace(workspace, "name=tiny", f"output.path={workspace}/ours")
    theirs = (f"name={path}", f"output.path={workspace}/theirs", "merge.anchor=eyes")
    convert_workspace(workspace, *theirs)
    assert "merge.anchor=eyes: a DFM does not say where src's are" in caplog.text
    files = sorted((workspace / "ours").glob("*.png"))
    assert len(files) == 6
    for file in files:
        pair = (cv2.imread(str(workspace / out / file.name)) for out in ("ours", "theirs"))
        assert cv2.absdiff(*pair).max() <= 1


def test_other_formats_are_written_and_other_settings_refused(workspace):
    exported(workspace, "format=safetensors", "precision=float16")
    content = (workspace / "tiny_full_32.safetensors").read_bytes()
    assert b'"decoder_src/face/ups/up_0/conv/kernel": {"dtype": "F16"' in content
    exported(workspace, "format=onnx", f"path={workspace}/a/b.onnx")
    assert onnx.load(str(workspace / "a/b.onnx")).metadata_props[0].key == "odfs.version"
    for setting in ("format=pickle", "precision=int8"):
        with pytest.raises(UserError, match=f"{setting}: expected one of"):
            exported(workspace, setting)
    exported(workspace, f"path={workspace}/x.dfm")
    for setting, why in (
        ("precision=bfloat16", "computes as it was exported"),
        ("morph=0.5", "no AMP model"),
        ("dfm_face_type=mark_only", "expected one of half"),
    ):
        with pytest.raises(UserError, match=why):
            convert_workspace(workspace, f"name={workspace}/x.dfm", setting)
    with pytest.raises(UserError, match="is no DFM"):
        convert_workspace(workspace, "name=tiny", "dfm_face_type=half")


def stranger(side=32, faces="N", inputs=(FACE,), channels=(1, 3, 1), extra=(), **changes):
    """A model of one layer: the new face is dst's, both masks are its first channel."""
    sizes = {FACE: [faces, side, side, 3], MORPH: [1]}
    sizes |= changes.pop("sizes", {})
    ends = np.array([0], np.int64), np.array([1], np.int64), np.array([3], np.int64)
    constants = [
        numpy_helper.from_array(a, n) for a, n in zip(ends, ("low", "high", "axis"), strict=True)
    ]
    nodes = [helper.make_node("Slice", [inputs[0], "low", "high", "axis"], ["first"])]
    nodes += [
        helper.make_node("Identity", [inputs[0] if size == 3 else "first"], [name])
        for name, size in zip(OUTPUTS, channels, strict=False)
    ]
    kind = changes.get("kind", TensorProto.FLOAT)
    graph = helper.make_graph(
        [*extra, *nodes],
        "g",
        [helper.make_tensor_value_info(n, kind, sizes.get(n, [1])) for n in inputs],
        [
            helper.make_tensor_value_info(n, kind, None)
            for n, _ in zip(OUTPUTS, channels, strict=False)
        ],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=7)


def loop():
    """A node that would run its own graph for ever."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, [])],
    )
    true = helper.make_node("Constant", [], ["t"], value=numpy_helper.from_array(np.array(True)))
    return [true, helper.make_node("Loop", ["", "t"], [], body=body)]


def outside():
    """A constant whose values are another file's."""
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    return [helper.make_node("Constant", [], ["w"], value=tensor)]


def nothing():
    """The logarithm of -1, 1 x 1."""
    value = numpy_helper.from_array(np.array([-1], np.float32))
    return [
        helper.make_node("Constant", [], ["minus"], value=value),
        helper.make_node("Log", ["minus"], ["nan"]),
    ]


@pytest.mark.parametrize(("faces", "count"), [("N", 3), (1, 3)])
def test_a_strangers_model_gets_bgr_and_is_run_inside_of_jax(tmp_path, faces, count):
    (tmp_path / "a.dfm").write_bytes(stranger(faces=faces).SerializeToString())
    swapper = load_dfm(tmp_path / "a.dfm", None, None)
    assert swapper.output_spec.face_type is FaceType.DFL_WHOLE and swapper.params.shape == (32,)
    pictures = np.random.default_rng(0).random((count, 32, 32, 3), np.float32)
    face, mask, own = jax.jit(swapper.predict)(swapper.params, pictures)
    assert (face == pictures).all() and (mask == pictures[..., 2:]).all() and (own == mask).all()


def with_function():
    """A model that says itself what one of its operations is."""
    model = stranger()
    model.functions.add(name="Own", domain="own")
    return model


BAD = {
    "functions": (with_function(), "functions of its own"),
    "no ONNX": (b"hello", "Error parsing message"),
    "nothing": (b"", "No graph"),
    "another name": (
        stranger(inputs=("face",), sizes={"face": ["N", 32, 32, 3]}),
        "its inputs are 'face'",
    ),
    "three inputs": (stranger(inputs=(FACE, MORPH, "x")), "its inputs are"),
    "second name": (stranger(inputs=(FACE, "x")), "its inputs are"),
    "morph of two": (stranger(inputs=(FACE, MORPH), sizes={MORPH: [2]}), r"not \[1\]"),
    "not square": (stranger(sizes={FACE: ["N", 32, 48, 3]}), "not \\[N, R, R, 3\\]"),
    "any size": (stranger(sizes={FACE: ["N", "R", "R", 3]}), "the side of a face"),
    "huge": (stranger(side=100_000), "the side of a face"),
    "doubles": (stranger(kind=TensorProto.DOUBLE), "not of float32"),
    "two outputs": (stranger(channels=(1, 3)), "its outputs are"),
    "another order": (stranger(channels=(3, 1, 1)), "its outputs are"),
    "a loop": (stranger(extra=loop()), "a graph in the graph"),
    "another file": (stranger(extra=outside()), "not in the file itself"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_dfm_is_refused_in_one_line(tmp_path, name):
    model, why = BAD[name]
    path = tmp_path / "a.dfm"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    with pytest.raises(UserError, match=f"a.dfm: no DFM that can be run .*{why}") as error:
        load_dfm(path, None, None)
    assert "\n" not in str(error.value)


def test_a_model_of_no_numbers_is_refused(tmp_path):
    model = stranger(extra=nothing())
    model.graph.node[3].op_type = "Mul"
    model.graph.node[3].input.append("nan")
    (tmp_path / "a.dfm").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="no numbers"):
        load_dfm(tmp_path / "a.dfm", None, None)


def test_settings_out_of_range_are_refused(tmp_path):
    model = stranger()
    model.metadata_props.add(key=SETTINGS, value='{"border": 7}')
    (tmp_path / "a.dfm").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match=r"a.dfm: no DFM that can be run \(border"):
        load_dfm(tmp_path / "a.dfm", None, None)


def test_no_file_and_a_pipe_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"gone.dfm: no such file"):
        load_dfm(tmp_path / "gone.dfm", None, None)
    os.mkfifo(tmp_path / "pipe.dfm")
    with pytest.raises(UserError, match="not a regular file"):
        load_dfm(tmp_path / "pipe.dfm", None, None)
