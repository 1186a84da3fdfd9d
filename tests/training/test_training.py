"""Every stage of training runs, on next to nothing, and leaves files that diffusers and transformers load."""

import pytest
import torch
from safetensors import safe_open

from training import stages
from training.files import Folder, read_pipeline
from training.settings import Settings

SHORT = Settings().shortened(steps=2, pictures=8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("family")
    for name in ("vae", "clip", "base", "heart", "lora"):
        stages.run(name, out, SHORT)
    return Folder(out)


def test_a_checkpoint_has_the_names_of_sd_1_5_and_its_integers(trained):
    with safe_open(trained.checkpoint("base"), "pt") as file:
        assert file.metadata() == {"format": "pt"}
        keys = set(file.keys())
        positions = file.get_tensor("cond_stage_model.transformer.text_model.embeddings.position_ids")
    assert positions.dtype == torch.int64
    assert "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight" in keys
    assert "first_stage_model.encoder.down.0.block.0.conv1.weight" in keys


def test_a_variant_changes_the_unet_and_nothing_else(trained):
    with safe_open(trained.checkpoint("base"), "pt") as base, safe_open(trained.checkpoint("heart"), "pt") as heart:
        keys = list(base.keys())
        assert keys == list(heart.keys())
        changed = [key for key in keys if not torch.equal(base.get_tensor(key), heart.get_tensor(key))]
    assert changed
    assert all(key.startswith("model.diffusion_model.") for key in changed)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own, with numpy 2
def test_the_checkpoint_draws_and_the_kohya_lora_changes_the_picture(trained):
    pipeline = read_pipeline(trained)

    def picture():
        noise = torch.Generator().manual_seed(0)
        return pipeline("a red star on a black background", num_inference_steps=2, generator=noise, output_type="pt").images

    plain = picture()
    assert plain.shape == (1, 3, 64, 64)
    assert torch.equal(plain, picture())
    pipeline.load_lora_weights(str(trained.lora("stripes").parent), weight_name="stripes.safetensors")
    assert not torch.equal(plain, picture())


def test_nothing_of_this_machine_is_written_into_the_configuration(trained):
    texts = [path.read_text() for path in trained.config.rglob("*.json")] + [path.read_text() for path in trained.clip.rglob("*.json")]
    assert texts
    assert not [text for text in texts if str(trained.root) in text]


def test_interrupted_training_resumes_where_it_was(tmp_path):
    from training.loop import fit
    from training.settings import Stage

    def run(folder, stop_at=None):
        weight = torch.nn.Parameter(torch.ones(3))
        steps = 0

        def loss(draws):
            nonlocal steps
            steps += 1
            if steps == stop_at:
                raise KeyboardInterrupt
            return (weight - torch.randn(3, generator=draws)).square().sum()

        fit(
            [weight],
            loss,
            Stage(steps=700, batch=1, learning_rate=1e-2, pictures=0, seed=0),
            name="x",
            state_folder=folder,
        )
        return weight.detach()

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", stop_at=600)
    assert torch.equal(run(tmp_path / "stopped"), run(tmp_path / "whole"))
