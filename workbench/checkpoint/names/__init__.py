"""What names say: of a checkpoint's tensors, of a layout's, of a LoRA's. No file is read here."""
