"""CLIP's tokenizer, made of the merges that ship, gives the tokens that open_clip 3.3.0 gave (`clip_tokens.json`)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from workbench.render.vocabulary import SHIPPED, clip_merges, clip_tokenizer, clip_vocabulary

TOKENS = json.loads((Path(__file__).parent / "clip_tokens.json").read_text(encoding="utf-8"))
MERGES = SHIPPED / "clip_merges.txt"


def _settings(name: str, part: str = "tokenizer") -> dict[str, object]:
    return json.loads((SHIPPED / name / part / "tokenizer_config.json").read_text(encoding="utf-8"))


def test_the_merges_are_byte_for_byte_those_that_are_published():
    assert hashlib.sha256(MERGES.read_bytes()).hexdigest() == "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a"
    assert len(clip_merges()) == 48_894


def test_every_token_has_the_number_that_the_text_models_know():
    vocabulary = clip_vocabulary()
    assert sorted(vocabulary.values()) == list(range(49_408))
    assert vocabulary["!"] == 0
    assert vocabulary["!</w>"] == 256
    assert vocabulary["in"] == 512  # the first that is merged
    assert (vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"]) == (49_406, 49_407)


def test_prompts_of_every_kind_get_the_tokens_that_openais_own_tokenizer_gives():
    tokenizer = clip_tokenizer(_settings("sd1"))
    assert len(TOKENS) >= 200
    assert {prompt: tokenizer(prompt, truncation=False, verbose=False).input_ids for prompt in TOKENS} == TOKENS


@pytest.mark.parametrize(("name", "part"), [("sd2", "tokenizer"), ("sdxl", "tokenizer_2")])
def test_padding_with_an_exclamation_mark_changes_only_prompts_that_have_one(name, part):
    tokenizer = clip_tokenizer(_settings(name, part))
    assert tokenizer.pad_token_id == 0
    plain = {prompt: tokens for prompt, tokens in TOKENS.items() if "!" not in prompt}
    assert {prompt: tokenizer(prompt, truncation=False, verbose=False).input_ids for prompt in plain} == plain
    # as in the published one, where the mark is the padding wherever it stands (huggingface/diffusers issue 4153, which shows this prompt)
    assert tokenizer("! !! !!!").input_ids == [49_406, *[0] * 6, 49_407]
    assert TOKENS["wow!"] == [49_406, 2_781, 256, 49_407]
    assert tokenizer("wow!").input_ids == [49_406, 2_781, 0, 49_407]


def test_it_is_the_tokenizer_that_a_published_folder_gives(tmp_path):
    from transformers import CLIPTokenizer

    settings = _settings("sdxl", "tokenizer_2")
    (tmp_path / "vocab.json").write_text(json.dumps(clip_vocabulary()), encoding="utf-8")
    (tmp_path / "merges.txt").write_bytes(MERGES.read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    published, ours = CLIPTokenizer.from_pretrained(tmp_path, local_files_only=True), clip_tokenizer(settings)
    # what OpenAI's own would clean first (HTML, ligatures, curly quotes), diffusers' pipelines do not either
    for prompt in (*TOKENS, "&amp; &lt;b&gt;", "“curly”", "a ﬁne ligature", "<|endoftext|> inside", "ｆｕｌｌ ｗｉｄｔｈ"):
        assert ours(prompt, verbose=False).input_ids == published(prompt, verbose=False).input_ids, prompt
    padded = {"padding": "max_length", "max_length": 77, "truncation": True}
    assert ours("a cat", **padded).input_ids == published("a cat", **padded).input_ids
    assert ours.model_max_length == published.model_max_length == 77


def test_special_tokens_may_be_written_in_full():
    in_full = {"__type": "AddedToken", "content": "<|endoftext|>", "lstrip": False, "normalized": True}
    tokenizer = clip_tokenizer({"eos_token": in_full, "unk_token": in_full, "pad_token": "!", "model_max_length": 77})
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|endoftext|>", "!")
