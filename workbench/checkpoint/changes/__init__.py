"""What a LoRA file can hold for a tensor: one small module for each kind of change, and `kinds`, which tells them by their parts."""
