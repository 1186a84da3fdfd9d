"""The prompts of the two models that the tests of `regression` merge."""

PROMPTS = [["a red heart on a white background"], ["a yellow moon on a black background"]]
