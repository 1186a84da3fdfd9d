"""Words the base never met get meanings of their own, and the base's own captions keep theirs."""

import torch

from training.parts import build_text_encoder, build_tokenizer, tokens_of
from training.words import set_apart
from workbench.demo.captions import BASE_SHAPES, Subject, subjects


def test_new_words_are_told_apart_and_the_known_captions_stay_what_they_were(tmp_path):
    torch.manual_seed(0)
    tokenizer = build_tokenizer(tmp_path)
    text_encoder = build_text_encoder(tokenizer)

    def meanings(wanted):
        with torch.no_grad():
            tokens = tokens_of(tokenizer, [subject.caption for subject in wanted])
            return text_encoder(tokens).last_hidden_state.flatten(1)

    pair = [Subject("heart", "red", "white"), Subject("moon", "red", "white")]
    styled = [Subject("star", "red", "white"), Subject("star", "red", "white", "outline")]
    known = meanings(subjects(BASE_SHAPES))
    before = [torch.pdist(meanings(two)).item() for two in (pair, styled)]
    set_apart(text_encoder, tokenizer)
    after = [torch.pdist(meanings(two)).item() for two in (pair, styled)]
    assert torch.equal(meanings(subjects(BASE_SHAPES)), known)
    assert all(new > old + 1 for new, old in zip(after, before, strict=True)), (before, after)
