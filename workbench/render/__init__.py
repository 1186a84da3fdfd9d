"""Pictures from checkpoints: the renderer, the labelled grid, the scorers. Nothing heavy is loaded until it is used."""
