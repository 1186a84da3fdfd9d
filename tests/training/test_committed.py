"""The committed family is the one the README describes, and draws what it is asked for."""

import hashlib
import re
from pathlib import Path

import pytest

from training.files import Folder
from training.quality import compare, pixel_background, pixel_colour
from workbench.demo.captions import Subject
from workbench.demo.exam import GUIDANCE, STEPS
from workbench.demo.judge import Judge

DATA = Path(__file__).parents[2] / "data"
# A few of every shape, colour and background; the whole grid is `python -m training.measure`.
ASKED = {
    "base": [
        "circle red white",
        "square green gray",
        "triangle blue pink",
        "star yellow black",
        "star orange gray",
        "circle purple black",
    ],
    "heart": ["heart red white", "heart green gray", "star blue black", "circle orange pink"],
    "moon": ["moon yellow black", "moon purple white", "square red gray", "triangle green pink"],
    "outline": ["circle red white outline", "star blue gray outline", "square green black outline"],
    "stripes": ["circle red white stripes", "star blue pink stripes", "square green white stripes"],
    "pastel": ["circle red white pastel", "star blue black pastel", "square green gray pastel"],
}


@pytest.fixture(scope="module")
def judge():
    return Judge(DATA / "shapes-clip")


@pytest.fixture(scope="module")
def renderer():
    from workbench.render import Renderer

    return Renderer(DATA / "shapes-sd" / "config")


def test_the_readme_has_every_file_with_its_size_and_sha256():
    lines = re.findall(r"^\| `(\S+)` \| (\d+) \| `([0-9a-f]{64})` \|", (DATA / "README.md").read_text(), flags=re.MULTILINE)
    stated = {name: (int(size), digest) for name, size, digest in lines}
    found = {}
    for path in sorted(DATA.glob("shapes-*/**/*.safetensors")):
        content = path.read_bytes()
        found[path.relative_to(DATA).as_posix()] = (len(content), hashlib.sha256(content).hexdigest())
    assert found
    assert {name: stated.get(name) for name in found} == found


@pytest.mark.parametrize("name", ASKED)
def test_a_checkpoint_is_at_most_six_megabytes(name):
    assert Folder(DATA).checkpoint(name).stat().st_size < 6_000_000


@pytest.mark.parametrize("name", ASKED)
def test_a_checkpoint_draws_what_it_is_asked_for(name, judge, renderer):
    import workbench as wb

    wanted = [Subject(*words.split()) for words in ASKED[name]]
    renderer.load(wb.open(Folder(DATA).checkpoint(name)), progress=False)
    captions = [subject.caption for subject in wanted]
    pictures = renderer.images(captions, [0, 1], steps=STEPS, guidance=GUIDANCE, progress=False)
    compared = compare([subject for subject in wanted for _ in range(2)], pictures, judge)
    allowed = len(pictures) // 4  # one picture in four may fail: this is a smoke test, the table is the measurement
    for aspect, seen in {"shape": "seen_shape", "style": "seen_style", "colour": "pixel_colour"}.items():
        assert (compared[aspect] != compared[seen]).sum() <= allowed, compared[[aspect, seen]]
    assert (compared["background"] != compared["pixel_background"]).sum() <= allowed


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own, with numpy 2
def test_diffusers_loads_a_checkpoint_with_nothing_but_the_config_folder():
    from diffusers import StableDiffusionPipeline

    folder = Folder(DATA)
    pipeline = StableDiffusionPipeline.from_single_file(str(folder.checkpoint("base")), config=str(folder.config), local_files_only=True)
    picture = pipeline("a red star on a black background", num_inference_steps=STEPS, guidance_scale=GUIDANCE).images[0]
    assert picture.size == (64, 64)
    assert pixel_background(picture) == "black"
    assert pixel_colour(picture) == "red"
