"""Single steps of denoising: as the pipeline takes them, with weights that are never put into it."""

from __future__ import annotations

import torch

import workbench as wb

PROMPT = "a red heart on a white background"


def test_latents_are_what_the_pictures_are_decoded_from(renderer, heart):
    renderer.load(heart, progress=False)
    latents = renderer.denoiser.latents([PROMPT], [3, 4], steps=3, guidance=2.0)
    assert latents.shape == (2, 4, 8, 8)
    vae = renderer._pipeline.vae
    with torch.no_grad():
        decoded = vae.decode(latents / vae.config.scaling_factor).sample
    pictures = renderer._pipeline.image_processor.postprocess(decoded, output_type="pil")
    drawn = renderer.images([PROMPT], [3, 4], steps=3, guidance=2.0, progress=False)
    assert [one.tobytes() for one in pictures] == [one.tobytes() for one in drawn]


def test_an_answer_is_the_unets_and_the_pipeline_keeps_what_it_holds(renderer, base, heart):
    renderer.load(heart, progress=False)
    denoiser = renderer.denoiser
    noisy, times = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([100, 900])
    asked = denoiser.embeddings([PROMPT, ""])
    with torch.no_grad():
        wanted = renderer._pipeline.unet(noisy, times, asked).sample
        assert torch.equal(denoiser.predict(heart, noisy, times, asked), wanted)
        assert not torch.equal(denoiser.predict(base, noisy, times, asked), wanted)
        assert torch.equal(renderer._pipeline.unet(noisy, times, asked).sample, wanted)


def test_a_merge_answers_as_it_draws(renderer, base, heart):
    merge = wb.operators.weighted_average([base, heart])
    renderer.load(merge, progress=False)
    noisy, times = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([500])
    asked = renderer.denoiser.embeddings([PROMPT])
    with torch.no_grad():
        wanted = renderer._pipeline.unet(noisy, times, asked).sample
        assert torch.equal(renderer.denoiser.predict(merge, noisy, times, asked), wanted)


def test_noise_is_added_as_the_models_were_trained(renderer):
    clean, noise = torch.ones(2, 4, 8, 8), torch.full((2, 4, 8, 8), 2.0)
    denoiser = renderer.denoiser
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, denoiser.times) ** 2  # Stable Diffusion's "scaled linear"
    kept = (1 - betas).cumprod(0)[[0, 999]]
    found = denoiser.noised(clean, noise, torch.tensor([0, 999]))
    torch.testing.assert_close(found[:, 0, 0, 0], kept.sqrt() + 2 * (1 - kept).sqrt())
