"""Files and texts that others wrote: whatever they hold, opening them ends at once in an error of our own that names the file."""

from __future__ import annotations

import io
import json
import os
import random
import socket
import struct
import time
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import workbench as wb
from workbench.checkpoint.base import MOST_MERGES, merges_in
from workbench.checkpoint.views.in_memory import InMemory
from workbench.errors import CheckpointError, RecipeError, RenderError, WorkbenchError
from workbench.panels import keeping
from workbench.untrusted import MOST_NODES, Refused, parse_json, parse_yaml
from workbench.wording import printable

TENSORS = {"a.weight": torch.ones(4, 4), "b.weight": torch.ones(2)}
LORA = {"lora_unet_mid_block_x.lora_up.weight": torch.ones(4, 2), "lora_unet_mid_block_x.lora_down.weight": torch.ones(2, 4)}
SAVED = "sd_merge_recipe"


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def doubled(levels: int) -> str:
    """A list of two that are each a list of two, and so on, in a few letters for each level."""
    return "- &a0 [x, x]\n" + "".join(f"- &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, levels))


REFUSED_YAML = {
    "aliases of aliases": doubled(40),
    "a list in itself": "&m [1, *m]",
    "a mapping in itself": "a: &m {b: *m}",
    "an alias of nothing": "[*m]",
    "flow in flow": "[" * 2000,
    "block in block": "".join(" " * i + "a:\n" for i in range(150)),
    "levels by aliases": "- &a0 [x]\n" + "".join(f"- &a{i} [*a{i - 1}]\n" for i in range(1, 150)),
    "too many values": "[" + "0," * (MOST_NODES + 1) + "]",
    "too long": "#" * (1 << 20) + "\n",
    "a number of 5000 digits": "a: " + "1" * 5000,
    "no date": "2001-99-99",
    "no timestamp": "!!timestamp x",
    "an unknown tag": "!!python/object/apply:os.system [ls]",
    "a NUL": "a: \0",
}


@pytest.mark.parametrize("name", REFUSED_YAML)
def test_yaml_beyond_bounds_is_refused_before_it_is_built(name):
    with pytest.raises(Refused):
        parse_yaml(REFUSED_YAML[name])


def test_yaml_within_bounds_is_as_ever():
    assert parse_yaml("a: &a [1, x]\nb: [*a, *a]\nc: {<<: {d: 2}}") == {"a": [1, "x"], "b": [[1, "x"], [1, "x"]], "c": {"d": 2}}
    assert parse_yaml("[" * 100 + "]" * 100)


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, "[" * 101 + "]" * 101, "{", b"\xff", "[" + "0," * 1_000_001 + "0]"])
def test_json_beyond_bounds_is_refused(text):
    with pytest.raises(Refused):
        parse_json(text, levels=100)


@pytest.mark.parametrize("name", REFUSED_YAML)
@pytest.mark.parametrize("load", [wb.Recipe.load, keeping.load])
def test_recipes_and_kept_panels_beyond_bounds_are_errors_that_name_the_file(load, name):
    path = Path("bad.yaml")
    path.write_text(REFUSED_YAML[name], encoding="utf-8")
    began = time.monotonic()
    with pytest.raises(RecipeError, match=r"bad\.yaml"):
        load(path)
    assert time.monotonic() - began < 5


def test_merges_shared_many_times_are_judged_once_and_too_many_are_an_error():
    models = [InMemory({"a.weight": torch.full((2, 2), float(i))}, f"m{i}") for i in range(2)]
    merge = wb.operators.weighted_average(models)
    for _ in range(40):
        merge = wb.operators.weighted_average([merge, merge])
    assert merges_in(merge) == 2**41 - 1 > MOST_MERGES
    assert merge.fingerprint("a.weight")
    assert merge.sources() == ()
    (told,) = wb.preflight(merge).errors
    assert "2,199,023,255,551 merges" in told
    with pytest.raises(RecipeError, match="export an inner one"):
        merge.recipe  # noqa: B018


def test_a_recipe_whose_nodes_are_shared_is_built_once():
    save_file(TENSORS, "a.safetensors")
    nodes = "- &n0 {operator: weighted_average, inputs: {models: [a, a]}}\n"
    nodes += "".join(f"- &n{i} {{operator: weighted_average, inputs: {{models: [*n{i - 1}, *n{i - 1}]}}}}\n" for i in range(1, 9))
    data = {"workbench": 1, "models": {"a": "a.safetensors"}, "merge": parse_yaml(nodes)[-1]}
    Path("r.yaml").write_text(json.dumps(data))
    merge = wb.Recipe.load("r.yaml").build()
    assert merge.parents[0] is merge.parents[1]
    assert torch.equal(merge["a.weight"], TENSORS["a.weight"])


def repacked(path: Path, change) -> Path:
    """A saved state dict whose entries are packed otherwise."""
    content = io.BytesIO()
    torch.save(TENSORS, content)
    with zipfile.ZipFile(content) as read, zipfile.ZipFile(path, "w") as written:
        for name in read.namelist():
            data, how = change(name, read.read(name))
            written.writestr(name, data, how)
    return path


def opcodes(content: bytes):
    return lambda path: repacked(path, lambda name, data: (content if name.endswith("data.pkl") else data, zipfile.ZIP_STORED))


def tuples_of_tuples(path: Path) -> None:
    content = b"\x80\x02}K\x01\x85q\x00" + b"".join(b"0h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60)) + b"K\x01s."
    repacked(path, lambda name, data: (content if name.endswith("data.pkl") else data, zipfile.ZIP_STORED))


BOMBS = {
    "compressed": lambda path: repacked(path, lambda name, data: (data, zipfile.ZIP_DEFLATED)),
    "a compressed bomb": lambda path: repacked(
        path, lambda n, d: (b"N" * (1 << 26) + b"." if n.endswith(".pkl") else d, zipfile.ZIP_DEFLATED)
    ),
    "too many opcodes": opcodes(b"\x80\x02" + b"N" * 3_000_000 + b"."),
    "too many bytes": opcodes(b"\x80\x02X\xff\xff\xff\x01" + b"x" * 0x1FFFFFF + b"."),
    "a bytearray of any size": opcodes(b"\x80\x02c__builtin__\nbytearray\nJ\x00\x00\x00\x7f\x85R."),
    "tuples of tuples": tuples_of_tuples,
    "opcodes before any archive": lambda path: path.write_bytes(b"\x80\x02" + b"N" * 3_000_000 + b"."),
}


@pytest.mark.parametrize("name", BOMBS)
def test_pickles_that_would_exhaust_the_machine_are_refused_unread(name, monkeypatch):
    path = Path("bomb.ckpt").absolute()
    BOMBS[name](path)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was unpickled"))
    with pytest.raises(CheckpointError, match=r"bomb\.ckpt: refused unread"):
        wb.open(path)


def test_ordinary_pickles_open_as_before():
    torch.save({"state_dict": TENSORS, "betas": (0.9, 0.99)}, "new.ckpt")
    torch.save(TENSORS, "old.ckpt", _use_new_zipfile_serialization=False)
    assert [len(wb.open(name)) for name in ("new.ckpt", "old.ckpt")] == [2, 2]


def test_a_state_dict_that_holds_itself_is_opened_or_refused():
    itself = dict(TENSORS)
    itself["state_dict"] = itself
    torch.save(itself, "self.ckpt")
    assert len(wb.open("self.ckpt")) == 2


def pipe(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(path.name)


OPENERS = {
    "m.safetensors": wb.open,
    "m.ckpt": wb.open,
    "m.safetensors.index.json": wb.open,
    "r.yaml": wb.Recipe.load,
    "p.yaml": keeping.load,
    "g.png": wb.open_grid,
    "h.safetensors": wb.Recipe.from_file,
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.parametrize(
    "make", [pipe, a_socket, Path.mkdir, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to(path)]
)
@pytest.mark.parametrize("name", OPENERS)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_only_regular_files_are_opened(name, make):
    make(Path(name))
    with pytest.raises(WorkbenchError, match=name.split(".")[0]):
        OPENERS[name](name)


@pytest.mark.parametrize("path", ["~nobody-by-this-name/m", "a\0b", "x" * 300, "x" * 5000, "\ud800", "."])
@pytest.mark.parametrize("name", OPENERS)
def test_names_that_cannot_be_are_errors(name, path):
    suffix = name[name.index(".") :]
    with pytest.raises(WorkbenchError):
        OPENERS[name](path if path == "." else path + suffix)


@pytest.mark.parametrize("open_it", [lambda path: wb.open(path), wb.Recipe.load, wb.open_grid, keeping.load])
def test_a_disk_that_fails_is_an_error_that_names_the_file(open_it, monkeypatch):
    path = Path("m.safetensors")
    save_file(TENSORS, path)

    def fails(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", fails)
    with pytest.raises(WorkbenchError, match=r"m\.safetensors.*Input/output error"):
        open_it(path)


def safetensors(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape=(1,), offsets=(0, 4), dtype="F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


HEADERS = {
    "empty": b"",
    "metadata is a list": safetensors({"__metadata__": [1], "a": entry()}, bytes(4)),
    "metadata is not strings": safetensors({"__metadata__": {"a": None}, "a": entry()}, bytes(4)),
    "metadata is a number": safetensors({"__metadata__": 0, "a": entry()}, bytes(4)),
    "longer than the file": struct.pack("<Q", 1 << 40) + b"{}",
    "a list": safetensors([]),
    "deep": safetensors(b'{"a":' + b"[" * 5000),
    "many lists": safetensors(b'{"a":[' + b"[]," * 600_000 + b"0]}"),
    "no JSON, and long": safetensors(b"x" * (1 << 21)),
    "out of range": safetensors({"a": entry(offsets=(0, 40), shape=(10,))}, bytes(4)),
    "overlapping": safetensors({"a": entry(), "b": entry(offsets=(2, 6))}, bytes(6)),
    "5000 digits": safetensors(b'{"a":{"dtype":"F32","shape":[' + b"1" * 5000 + b'],"data_offsets":[0,4]}}', bytes(4)),
    "many dimensions": safetensors({"a": entry(shape=(1,) * 1000)}, bytes(4)),
    "vast dimensions": safetensors({"a": entry(shape=(2**62,) * 60)}, bytes(4)),
    "an entry is null": safetensors({"a": None}),
    "shape is text": safetensors({"a": entry(shape="11")}, bytes(4)),
    "half a character": safetensors(b'{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
}


@pytest.mark.parametrize("name", HEADERS)
def test_damaged_headers_are_errors_that_name_the_file(name):
    Path("bad.safetensors").write_bytes(HEADERS[name])
    with pytest.raises(CheckpointError, match=r"bad\.safetensors"):
        wb.open("bad.safetensors")


@pytest.mark.parametrize(
    "told", ["null", "[]", "[" * 3000, '{"unet.lora_alpha": NaN}', '{"unet.lora_alpha": 1' + "0" * 400 + "}", "{", "1"]
)
def test_damaged_settings_of_a_lora_are_errors(told):
    save_file(LORA, "l.safetensors", metadata={"lora_adapter_metadata": told})
    with pytest.raises(CheckpointError, match=r"l\.safetensors.*(not|finite)"):
        wb.open("l.safetensors")


@pytest.mark.parametrize("alpha", [torch.ones(2), torch.ones(0), torch.tensor(float("nan")), torch.tensor(float("inf"))])
def test_damaged_alphas_of_a_lora_are_errors(alpha):
    save_file(LORA | {"lora_unet_mid_block_x.alpha": alpha}, "l.safetensors")
    with pytest.raises(CheckpointError, match=r"l\.safetensors: 'lora_unet_mid_block_x\.alpha'"):
        wb.open("l.safetensors")


@pytest.mark.parametrize("shard", ["x" * 5000, "x" * 256, "a\0b", "\x1b[2J", "../a", "/dev/zero", "", "."])
def test_an_index_that_names_what_cannot_be_is_an_error(shard):
    Path("m.safetensors.index.json").write_text(json.dumps({"weight_map": {"a.weight": shard}}))
    with pytest.raises(CheckpointError, match=r"index\.json"):
        wb.open("m.safetensors.index.json")


RECIPES = ["null", "[]", "{", "[" * 3000, '"x"', '{"type": "workbench"}', '{"type": "workbench", "recipe": ' + "[" * 200 + "]" * 200 + "}"]


@pytest.mark.parametrize("told", RECIPES)
def test_damaged_recipes_in_headers_are_errors_that_name_the_file(told):
    save_file(TENSORS, "m.safetensors", metadata={SAVED: told})
    with pytest.raises(RecipeError, match=r"m\.safetensors"):
        wb.Recipe.from_file("m.safetensors")
    assert str(wb.diff(wb.open("m.safetensors"), wb.open("m.safetensors")))


def png(text: bytes | None, size: int = 8) -> bytes:
    """A PNG that says that it has so many pixels each way, and has none."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" * 100))]
    chunks += [] if text is None else [(b"iTXt", b"workbench\0\1\0\0\0" + zlib.compress(text))]
    chunks += [(b"IEND", b"")]
    written = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


GRIDS = [
    None,
    b"[" * 100_000,
    b"null",
    b"0",
    b"[]",
    b'{"models": 0, "workbench": 1}',
    b" " * (1 << 24),
    b'{"models":[{"name":"a","recipe":"&a [*a]"}],"workbench":1}',
]


@pytest.mark.parametrize("text", GRIDS)
@pytest.mark.parametrize("size", [8, 100_000])
def test_damaged_grids_are_errors_that_name_the_file_and_no_pixel_is_decoded(text, size):
    Path("g.png").write_bytes(png(text, size))
    with pytest.raises(RenderError, match=r"g\.png"):
        wb.open_grid("g.png")


def test_no_module_is_imported_because_a_pipelines_index_says_so(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    Path("evil.py").write_text("raise SystemExit('it was imported')")
    Path("model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline", "unet": ["evil", "Unet"]}))
    with pytest.raises(RenderError, match=r"evil\.Unet"):
        wb.render.assembly.read_blueprint(tmp_path)


def test_what_does_not_show_is_escaped():
    assert printable("a\x1b[2J\x07\n\u202eb é 漢\xa0") == "a\\x1b[2J\\x07\\n\\u202eb é 漢\xa0"
    assert printable("a\nb", keep="\n") == "a\nb"


def mutated(content: bytes, draw: random.Random) -> bytes:
    """A file with some of its bytes changed, cut, or doubled; now and then a number or a bracket in their place."""
    found = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(found) + 1)
        kind = draw.randrange(4)
        if kind == 0:
            found[at : at + 1] = bytes([draw.randrange(256)])
        elif kind == 1:
            del found[at : at + draw.randrange(64)]
        elif kind == 2:
            found[at:at] = draw.choice([b"[" * 300, b"null", b"-1", b"1e999", b"NaN", b"\0", b"\xff", b"&a *a ", b'"', b"{}", b"\\ud800"])
        else:
            found[at:at] = found[at : at + draw.randrange(200)]
    return bytes(found)


def seeds() -> dict[str, bytes]:
    save_file(TENSORS, "a.safetensors", metadata={"modelspec.title": "x", SAVED: json.dumps({"type": "workbench", "recipe": RECIPE})})
    save_file(LORA, "l.safetensors", metadata={"lora_adapter_metadata": '{"unet.lora_alpha": 4}'})
    torch.save({"state_dict": TENSORS}, "m.ckpt")
    Path("index.json").write_text(json.dumps({"metadata": {"total_size": 72}, "weight_map": dict.fromkeys(TENSORS, "a.safetensors")}))
    grid = json.dumps({"workbench": "0", "models": [{"name": "a", "recipe": json.dumps(RECIPE)}], "prompts": ["x"]}).encode()
    chunk = b"tEXtworkbench\0" + grid
    whole = png(None)[:-12] + struct.pack(">I", len(chunk) - 4) + chunk + bytes(4)
    return {
        "m.safetensors": Path("a.safetensors").read_bytes(),
        "h.safetensors": Path("a.safetensors").read_bytes(),
        "lora.safetensors": Path("l.safetensors").read_bytes(),
        "m.ckpt": Path("m.ckpt").read_bytes(),
        "m.safetensors.index.json": Path("index.json").read_bytes(),
        "r.yaml": json.dumps(RECIPE).encode(),
        "p.yaml": b"panel: 1\nmodels: [{name: a, path: a.safetensors}]\nsnapshots: {}\nrecipe: "
        + json.dumps(RECIPE).encode()
        + b"\npictures: {}\n",
        "g.png": whole,
    }


RECIPE = {
    "workbench": 1,
    "models": {"a": "a.safetensors", "b": {"path": "a.safetensors"}},
    "merge": {
        "operator": "weighted_average",
        "inputs": {"models": ["a", "b"]},
        "options": {"weights": [0.5, {"ramp": {"start": 0, "end": 1}}["ramp"]["end"]]},
        "rules": [{"match": "a.*", "take": "models[0]"}],
    },
    "seed": 3,
}


def test_changed_files_end_in_our_errors_only():
    """A short run of a fuzzer: every opener, files with some bytes changed; what opens is built, too."""
    draw, plain = random.Random(16), seeds()
    for number in range(600):
        name = draw.choice(sorted(plain))
        content = mutated(plain[name], draw)
        Path(f"fuzz-{name}").write_bytes(content)
        try:
            found = OPENERS.get(name, wb.open)(f"fuzz-{name}")
            if isinstance(found, wb.Recipe):
                found.to_yaml()
                wb.preflight(found.build())
        except WorkbenchError:
            continue
        except BaseException as error:
            raise AssertionError(f"case {number}: {name} of {content[:2000]!r}") from error


def test_no_seed_of_the_fuzzer_is_damaged_itself():
    for name, content in seeds().items():
        Path(name).write_bytes(content)
        OPENERS.get(name, wb.open)(name) if name != "p.yaml" else None
