"""Results: digests that move with content alone, tables that verify, atomic writes, comparisons."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import pandas as pd
import pytest
import torch
from descent import results
from descent.results import Kind, Measured, Provenance, compare
from descent.stats import intervals

MADE = Provenance(
    scale="cpu", device_class="cpu", dtype="float64", threads=1, instructions="any", matmul="highest",
    convolution="ieee", python="3.11", torch="2.15", numpy="2.4", seed=0, replicas=100, library="0" * 16,
    date="2026-01-01",
)  # fmt: skip


class Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass(frozen=True)
class Inner:
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True)
class Config:
    lr: object = 0.1
    momenta: tuple[float, ...] = (0.0, 0.9)
    colour: Colour = Colour.RED
    inner: Inner = Inner()


@dataclass(frozen=True)
class Other:
    lr: object = 0.1
    momenta: tuple[float, ...] = (0.0, 0.9)
    colour: Colour = Colour.RED
    inner: Inner = Inner()


# --- digests ----------------------------------------------------------------------------------------------


def test_a_digest_is_pinned():
    # A release that moves these invalidates every stored comparison: then say so in the changelog.
    assert results.canonical(Inner()) == '{"Inner":{"device":{"str":"cpu"},"seed":{"int":0}}}'
    assert results.digest(Inner()) == "2757a32e4c97e623"


def test_equal_content_has_an_equal_digest():
    assert results.digest(Config()) == results.digest(Config(lr=0.1, momenta=(0.0, 0.9)))
    assert results.digest({"a": 1, "b": 2}) == results.digest({"b": 2, "a": 1})
    assert results.digest(Config(lr=np.float64(0.1))) == results.digest(Config())


@pytest.mark.parametrize(
    "other",
    [
        Config(lr=0.1 + 1e-17 + 1e-16),
        Config(lr=1),
        Config(lr="0.1"),
        Config(lr=None),
        Config(lr=math.nan),
        Config(momenta=(0.9, 0.0)),
        Config(momenta=(0.0, 0.9, 0.9)),
        Config(colour=Colour.BLUE),
        Config(inner=Inner(seed=1)),
        Other(),
    ],
)
def test_other_content_has_another_digest(other):
    assert results.digest(other) != results.digest(Config())


def test_types_are_told_apart():
    values = [1, 1.0, True, "1", (1,), None, {"int": 1}, torch.float32, "torch.float32", np.array([1])]
    assert len({results.digest(value) for value in values}) == len(values)


def test_ignored_fields_are_left_out_at_every_depth():
    a, b = Config(inner=Inner(seed=1, device="cuda")), Config()
    assert results.digest(a, ignore=("seed", "device")) == results.digest(b, ignore=("seed", "device"))
    assert results.digest(a, ignore=("seed",)) != results.digest(b, ignore=("seed",))


def test_a_value_without_canonical_form_is_named():
    with pytest.raises(TypeError, match=r"configuration\.lr is a function"):
        results.digest(Config(lr=lambda: 0))
    with pytest.raises(TypeError, match=r"configuration\.lr has keys"):
        results.digest(Config(lr={1: 2}))


def test_data_digests_move_with_values_shape_and_type(tmp_path):
    array = np.arange(6.0)
    strided = (np.arange(12.0) / 2)[::2]
    same = [array, strided, torch.arange(6, dtype=torch.float64), array.astype(">f8")]
    assert len({results.data_digest(item) for item in same}) == 1
    others = [array, array.reshape(2, 3), array.astype("f4"), array + 1e-15, array[:5]]
    assert len({results.data_digest(item) for item in others}) == len(others)
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    assert results.data_digest(frame) == results.data_digest(frame.copy())
    assert results.data_digest(frame) != results.data_digest(frame.replace("y", "z"))
    path = tmp_path / "data.bin"
    path.write_bytes(b"abc")
    assert results.data_digest(path) == results.data_digest(b"abc") != results.data_digest(b"abd")


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "toy"
    (folder / "inner").mkdir(parents=True)
    files = {
        "__init__.py": "",
        "top.py": "import os\nfrom toy.inner import deep\nfrom . import near\n",
        "near.py": "def f():\n    import toy.late\n",
        "late.py": "raise RuntimeError('never executed')\n",
        "unrelated.py": "x = 1\n",
        "inner/__init__.py": "from .shown import y\n",
        "inner/shown.py": "y = 1\n",
        "inner/deep.py": "from ..far import z\n",
        "inner/hidden.py": "",
        "far.py": "z = 1\nimport toy.top\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_the_import_closure_follows_every_form_of_import_and_no_parent(package):
    parts = ["far", "inner.deep", "late", "near", "top"]
    assert list(results.library_files(["toy.top"], package)) == [f"toy.{part}" for part in parts]
    assert list(results.library_files(["toy.unrelated"], package)) == ["toy.unrelated"]


@pytest.mark.parametrize(
    ("module", "moves"),
    [("top", True), ("inner/deep", True), ("late", True), ("far", True), ("near", True),
     ("inner/shown", False), ("__init__", False), ("unrelated", False), ("inner/hidden", False)],
)  # fmt: skip
def test_the_library_digest_moves_with_what_is_imported(package, module, moves):
    before = results.library_digest(["toy.top"], package)
    with (package / "toy" / f"{module}.py").open("a", encoding="utf-8") as file:
        file.write("more = 1\n")
    assert (results.library_digest(["toy.top"], package) != before) is moves


CODE = '''"""Says what it is."""

from toy import far
from toy.inner import deep

LIMIT = 3
"""What is allowed."""


def f(x):
    """Return it."""
    return deep.g(x) + far.z
'''


@pytest.mark.parametrize(
    ("old", "new", "moved"),
    [("Says what it is", "Says more", []), ("What is allowed", "What was", []), ("Return it", "Return that", []),
     ("return deep", "# sure\n    return deep", []), ("deep.g(x) + far.z", "(deep.g(x) +\n            far.z)", []),
     ("from toy import far\nfrom toy.inner import deep", "from toy.inner import deep\nfrom toy import far", []),
     ("LIMIT = 3", "LIMIT = 4", ["toy.code, LIMIT"]), ("+ far", "- far", ["toy.code, f"]),
     ("inner import deep", "inner import hidden as deep", ["toy.code, imports"])],
)  # fmt: skip
def test_what_is_only_said_moves_nothing_and_what_moved_has_a_name(package, old, new, moved):
    file = package / "toy" / "code.py"
    file.write_text(CODE)
    before = results.code_pieces(["toy.code"], package)
    assert old in CODE
    file.write_text(CODE.replace(old, new))
    after = results.code_pieces(["toy.code"], package)
    assert sorted(key for key in before | after if before.get(key) != after.get(key)) == moved


PACKAGE = """from toy.near import f
from toy.unrelated import x

SECRET = 1
ALL = (f, x)


def own():
    return x + SECRET
"""


@pytest.mark.parametrize(
    ("code", "modules"),
    [("from toy import shop\nshop.f", {"near", "late"}), ("from toy import shop\nshop.SECRET", {"shop"}),
     ("from toy.shop import own", {"shop", "unrelated"}), ("from toy.shop import own as o\no()", {"shop", "unrelated"}),
     ("from toy import shop\nshop.ALL", {"shop", "near", "late", "unrelated"}),
     ("from toy import shop\nprint(shop)", {"shop", "near", "late", "unrelated"}),
     ("import numpy\nnumpy.array", set())],
)  # fmt: skip
def test_of_a_package_counts_what_is_asked_of_it(package, code, modules):
    (package / "toy" / "shop").mkdir()
    (package / "toy" / "shop" / "__init__.py").write_text(PACKAGE)
    used = code if "\n" in code else f"{code}\nown()"
    found = {key.partition(", ")[0] for key in results.imported_pieces(used, package)}
    assert found == {f"toy.{name}" for name in modules}


def test_the_library_digest_depends_on_neither_order_nor_line_ends(package):
    before = results.library_digest(["toy.top", "toy.unrelated"], package)
    file = package / "toy" / "top.py"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert results.library_digest(["toy.unrelated", "toy.top"], package) == before


def test_a_module_without_source_is_named(package):
    with pytest.raises(ValueError, match=r"no source for toy\.none"):
        results.library_digest(["toy.top", "toy.none"], package)
    with pytest.raises(ValueError, match="an empty list"):
        results.library_digest([], package)


def test_the_package_itself_is_found():
    assert "descent.stats.estimate" in results.library_files(["descent.claims"])


# --- provenance -------------------------------------------------------------------------------------------


def test_provenance_records_the_conditions_and_nothing_personal():
    made = results.provenance("cpu", "cpu", 3, 50, modules=["descent.results"], dtype=torch.float64)
    assert (made.scale, made.device_class, made.dtype) == ("cpu", "cpu", "float64")
    assert (made.seed, made.replicas) == (3, 50)
    assert made.torch == torch.__version__
    assert Provenance.from_json(json.loads(json.dumps(made.to_json()))) == made
    text = json.dumps(made.to_json())
    assert os.uname().nodename not in text
    assert os.sep not in text


def test_provenance_refuses_an_unknown_scale_and_an_absent_device():
    with pytest.raises(ValueError, match="scale must be one of cpu, gpu, night, got 'tpu'"):
        results.provenance("tpu", "cpu", 0, 1, modules=["descent.results"])
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="not available here"):
            results.provenance("gpu", "cuda", 0, 1, modules=["descent.results"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_device_class_of_a_gpu_is_its_model():
    made = results.provenance("gpu", "cuda", 0, 1, modules=["descent.results"])
    assert made.device_class == torch.cuda.get_device_name()


# --- folders and files ------------------------------------------------------------------------------------


def test_the_project_is_found_from_the_package_or_the_working_folder(tmp_path, monkeypatch):
    assert (results.project_root() / "data" / "claims").is_dir()
    monkeypatch.setattr("descent.results.store.__file__", str(tmp_path / "elsewhere" / "store.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="pip install -e"):
        results.project_root()
    (tmp_path / "data" / "claims").mkdir(parents=True)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert results.project_root() == tmp_path


def test_output_goes_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("DESCENT_OUT", str(tmp_path / "out"))
    assert results.output_folder("saddles") == tmp_path / "out"
    assert (tmp_path / "out").is_dir()
    monkeypatch.delenv("DESCENT_OUT")
    monkeypatch.setattr("descent.results.store.project_root", lambda: tmp_path)
    assert results.output_folder("saddles") == tmp_path / "runs" / "saddles"


def test_an_atomic_write_replaces_the_whole_file(tmp_path):
    path = tmp_path / "new" / "file.json"
    results.write_atomic(path, "first, and long")
    results.write_atomic(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "file.json"
    results.write_atomic(path, "old")

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(step, crash)
    with pytest.raises(KeyboardInterrupt):
        results.write_atomic(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    results.write_atomic(path, "old")
    child = os.fork()
    if not child:
        os.fsync = lambda _: os._exit(9)
        results.write_atomic(path, "new")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert path.read_text(encoding="utf-8") == "old"


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        results.write_json(tmp_path / "a.json", {"x": math.nan})
    assert not list(tmp_path.iterdir())


# --- tables -----------------------------------------------------------------------------------------------


def frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame({
        "momentum": rng.normal(size=6) * 10.0 ** np.arange(-150, 150, 50),
        "single": rng.normal(size=6).astype("f4"),
        "hole": [0.1, np.nan, np.inf, -np.inf, -0.0, 5e-324],
        "step": np.arange(6) + 2**60,
        "done": [True, False] * 3,
        "arm": ["plain", "NA", "", 'quo"te', "com,ma", "nan"],
    })  # fmt: skip


def test_a_table_comes_back_bit_for_bit(tmp_path):
    path = results.save_table("escape", frame(), MADE, tmp_path, experiment="escape", config="0123")
    table = results.load_table(path)
    pd.testing.assert_frame_equal(table.frame, frame(), check_exact=True, check_dtype=True)
    for column in ("momentum", "single", "hole"):
        assert table.frame[column].to_numpy().tobytes() == frame()[column].to_numpy().tobytes()
    assert (table.name, table.experiment, table.config) == ("escape", "escape", "0123")
    assert table.provenance == MADE


def test_a_table_of_empty_texts_keeps_its_rows(tmp_path):
    blank = pd.DataFrame({"note": ["", "a", ""]})
    assert results.load_table(results.save_table("notes", blank, MADE, tmp_path)).frame.equals(blank)


def test_a_changed_byte_in_a_table_is_refused(tmp_path):
    path = results.save_table("escape", frame(), MADE, tmp_path)
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"escape.csv is not the file that was written"):
        results.load_table(path)


def test_a_table_of_another_schema_is_refused(tmp_path):
    path = results.save_table("escape", frame(), MADE, tmp_path)
    about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    path.with_suffix(".json").write_text(json.dumps(about | {"schema": 9}), encoding="utf-8")
    with pytest.raises(ValueError, match="schema 9, this library reads 1"):
        results.load_table(path)


def test_a_table_without_its_note_is_refused_by_name(tmp_path):
    path = results.save_table("escape", frame(), MADE, tmp_path)
    path.with_suffix(".json").unlink()
    with pytest.raises(ValueError, match=r"escape\.csv has no escape\.json beside it.*restore the file"):
        results.load_table(path)


def test_an_untidy_table_is_refused(tmp_path):
    with pytest.raises(ValueError, match="reset_index"):
        results.save_table("a", frame().set_index("arm"), MADE, tmp_path)
    with pytest.raises(ValueError, match="column 'x' of type object"):
        results.save_table("a", pd.DataFrame({"x": [[1], [2]]}), MADE, tmp_path)
    with pytest.raises(ValueError, match="complete texts"):
        results.save_table("a", pd.DataFrame({"x": ["a", None]}), MADE, tmp_path)
    assert not list(tmp_path.iterdir())


# --- comparisons ------------------------------------------------------------------------------------------


def measured(value=1.0, half=0.1, config="c", **changes):
    estimate = intervals.Estimate(value, value - half, value + half, 100, "Student t")
    return Measured("P9-C1.size", estimate, config, replace(MADE, **changes))


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, Kind.SAME),
        ({"date": "2030-01-01"}, Kind.SAME),
        ({"torch": "2.16"}, Kind.NUMERICS),
        ({"device_class": "Some GPU"}, Kind.NUMERICS),
        ({"threads": 2}, Kind.NUMERICS),
        ({"matmul": "high"}, Kind.NUMERICS),
        ({"library": "1" * 16}, Kind.NUMERICS),
        ({"instructions": "another processor"}, Kind.NUMERICS),
        ({"seed": 1, "torch": "2.16"}, Kind.STATISTICAL),
        ({"replicas": 200}, Kind.STATISTICAL),
        ({"config": "d"}, Kind.INCOMPATIBLE),
        ({"scale": "gpu"}, Kind.INCOMPATIBLE),
    ],
)
def test_the_conditions_choose_the_kind_of_comparison(changes, kind):
    assert compare(measured(), measured(**changes)).kind is kind


def test_same_means_every_bit():
    same = compare(measured(), measured())
    assert (same.compatible, same.answer, same.remark) == (True, "yes", "")
    close = compare(measured(), measured(np.nextafter(1.0, 2.0)))
    assert (close.compatible, close.answer) == (False, "no")
    assert "digits differ though nothing that was recorded does" in close.remark
    assert compare(measured(), measured(5.0)).remark == ""


def test_other_arithmetic_may_move_an_estimate_by_a_quarter_of_its_width():
    # Half-width 0.1, so a quarter of the width is 0.05; the ends may move as far, and no further.
    for shift, expected in ((0.049, True), (0.051, False), (-0.049, True), (-0.051, False)):
        assert compare(measured(), measured(1 + shift, torch="2.16")).compatible is expected
    for half, expected in ((0.14, True), (0.16, False), (0.081, True), (0.05, False)):
        assert compare(measured(), measured(half=half, torch="2.16")).compatible is expected


@pytest.mark.parametrize("changes", [{"instructions": "another processor"}, {"torch": "2.16"}, {"threads": 2}])
def test_where_runs_are_chaotic_other_arithmetic_is_another_draw(changes):
    here, elsewhere = replace(measured(), chaotic=True), measured(1.2, **changes)
    for a, b in ((here, elsewhere), (elsewhere, here)):
        found = compare(a, b)
        assert (found.kind, found.compatible) == (Kind.STATISTICAL, True)
        assert found.how == "statistical; chaotic, and other arithmetic"
    assert compare(here, measured(1.217, **changes)).compatible is False
    assert compare(here, measured(1.2, seed=1)).how == "statistical"


@pytest.mark.parametrize("changes", [{}, {"library": "1" * 16}])
def test_chaotic_runs_of_one_arithmetic_are_held_to_what_all_others_are(changes):
    assert compare(replace(measured(), chaotic=True), measured(1.051, **changes)).compatible is False


def test_round_off_is_as_good_as_any_other_round_off():
    assert compare(measured(3e-16, 0.0), measured(9e-13, 0.0, torch="2.16")).compatible is True
    assert compare(measured(1e-30, 1e-31), measured(4e-30, 1e-31, torch="2.16")).compatible is True
    assert compare(measured(3e-16, 0.0), measured(2e-11, 0.0, torch="2.16")).compatible is False


def test_other_seeds_agree_within_three_standard_errors():
    # Half-width 0.1 at 95 % and infinite dof: s = 0.1/1.95996, so the limit is 3·√2·s = 0.21646.
    assert compare(measured(), measured(1.216, seed=1)).compatible is True
    assert compare(measured(), measured(1.217, seed=1)).compatible is False
    assert compare(measured(), measured(config="d")).compatible is None


def test_few_degrees_of_freedom_mean_a_smaller_standard_error():
    # t(2) = 4.30, so s = 0.0232 and the limit is 3·√(0.0232² + 0.0510²) = 0.1682.
    for value, expected in ((1.168, True), (1.169, False)):
        few = intervals.Estimate(value, value - 0.1, value + 0.1, 3, "Student t", 2)
        assert compare(replace(measured(seed=1), estimate=few), measured()).compatible is expected


def test_deterministic_numbers_agree_to_half_their_digits():
    a = measured(half=0.0)
    assert compare(a, measured(1 + 1e-9, 0.0, torch="2.16")).compatible is True
    assert compare(a, measured(1 + 1e-6, 0.0, torch="2.16")).compatible is False
    assert compare(a, measured(1 + 1e-6, 0.0, dtype="float32")).compatible is True


def test_an_unbounded_interval_is_compatible_with_anything_and_itself():
    endless = replace(measured(), estimate=intervals.censored_mean([5.0, 5.0], [False, False]))
    assert compare(endless, endless).compatible is True
    assert compare(endless, replace(endless, provenance=replace(MADE, seed=1))).compatible is True


def test_the_false_alarm_rate_of_a_statistical_comparison_is_small():
    rng = np.random.default_rng(5)
    runs = [(intervals.mean(rng.normal(size=32)), intervals.mean(rng.normal(size=32))) for _ in range(2000)]
    other = replace(MADE, seed=1)
    answers = [compare(Measured("k", a, "c", MADE), Measured("k", b, "c", other)).compatible for a, b in runs]
    # Two means of 32 differ by more than 3 standard errors in 0.39 % of pairs (t with 62 dof).
    assert answers.count(False) <= 0.0039 * 2000 + 4 * math.sqrt(0.0039 * 2000)
    assert answers.count(False) >= 1


def test_what_was_made_in_several_places_names_them_all():
    other = replace(MADE, instructions="another processor", date="2030-01-01")
    both = results.joined([MADE, other, MADE])
    assert both.instructions == "another processor and any"
    assert both.date == "2030-01-01"
    assert replace(both, instructions=MADE.instructions, date=MADE.date) == MADE
    assert results.joined([MADE]) == MADE
    assert results.joined([other, both, MADE]) == both, "what is joined twice is named once, in one order"


@pytest.mark.parametrize("scale", ["gpu", "night"])
def test_a_table_of_record_is_drawn_on_the_same_axis_or_not_at_all(tmp_path, monkeypatch, scale):
    from descent.figures import panels, paper_scale
    from descent.results import paper_table, store

    monkeypatch.setattr(store, "project_root", lambda: tmp_path)
    assert paper_table("saddles", "escape", scale) is None
    folder = tmp_path / "data" / "published" / "saddles" / scale
    frame = pd.DataFrame({"momentum": [0.0, 0.9], "ratio": [1.0, 8.0], "low": [1.0, 7.0], "high": [1.0, 9.0]})
    results.save_table("escape", frame, results.provenance(scale, "cpu", 0, 10, modules=["descent.stats"]), folder)
    _, (axis,) = panels(1)
    paper_scale(axis, None, "momentum", ("ratio", "low", "high"))
    assert not axis.containers
    paper_scale(axis, paper_table("saddles", "escape", scale), "momentum", ("ratio", "low", "high"))
    (drawn,) = axis.containers
    assert drawn[0].get_ydata().tolist() == [1.0, 8.0]
    assert drawn[0].get_xdata() == pytest.approx([1.0, 10.0])
