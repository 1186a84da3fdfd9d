"""The header of a file to be written, and where in it every tensor of every quantiser lies: of a safetensors file, and of a GGUF."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.files.ggml_types import GgmlType, plain_type, quantization_version
from workbench.checkpoint.files.gguf_writing import GgufTensorToBe, Value, gguf_header, shape_in_gguf
from workbench.checkpoint.files.writing import safetensors_header
from workbench.checkpoint.names.components import DENOISER
from workbench.engine.quantising.formats import cuts
from workbench.engine.quantising.gguf_blocks import GgufQuantiser
from workbench.engine.quantising.quantiser import Quantiser
from workbench.errors import ExportError
from workbench.families.correspondence import DIFFUSERS, Unchanged

Quantisers = Mapping[str, Quantiser]  # by the names of tensors in the file
Begins = dict[str, tuple[int, ...]]  # where each of a quantiser's tensors begins, by the same names
Container = Callable[[Quantisers, Mapping[str, str], int], tuple[bytes, Begins]]  # of metadata, and the least length


def in_safetensors(quantisers: Quantisers, metadata: Mapping[str, str], length: int) -> tuple[bytes, Begins]:
    """A safetensors file's bytes before the data."""
    stored = {name: one.stored(name) for name, one in quantisers.items()}
    infos = {each: info for tensors in stored.values() for each, info in tensors.items()}
    header, begins = safetensors_header(infos, metadata, length)
    return header, {name: tuple(begins[each] for each in tensors) for name, tensors in stored.items()}


def in_gguf(checkpoint: Checkpoint) -> Container:
    """The same of a GGUF file that holds a checkpoint's tensors. A denoiser alone has its `general.architecture`."""
    cutting = cuts(checkpoint)
    architecture = checkpoint.structure.family.gguf if is_denoiser(checkpoint) else ""

    def head(quantisers: Quantisers, metadata: Mapping[str, str], length: int) -> tuple[bytes, Begins]:
        tensors = {}
        for name, one in quantisers.items():
            kind, shape = _type(one), one.info.shape
            tensors[name] = GgufTensorToBe(kind, shape, shape_in_gguf(shape, kind.block, cutting) or shape)
        said: dict[str, Value] = {"general.architecture": architecture} if architecture else {}
        texts = {name: text for name, text in metadata.items() if name != "format"}  # which says of safetensors that torch reads it
        header, begins = gguf_header(tensors, {**said, "general.quantization_version": quantization_version(), **texts})
        return header, {name: (begin,) for name, begin in begins.items()}

    return head


def _type(quantiser: Quantiser) -> GgmlType:
    found = quantiser.type if isinstance(quantiser, GgufQuantiser) else plain_type(quantiser.info.code)
    assert found is not None  # judged when it was chosen
    return found


def is_denoiser(checkpoint: Checkpoint) -> bool:
    """Whether it holds a denoiser and no other component, but for markers."""
    return set(checkpoint.components) - {"other"} == {checkpoint.structure.denoiser}


def names_in_gguf(checkpoint: Checkpoint) -> dict[str, str]:
    """What each tensor is called: a denoiser alone has no prefix. Raises ExportError for the names of diffusers."""
    structure = checkpoint.structure
    if structure.layouts.get(DENOISER) == DIFFUSERS and not isinstance(structure.family.conversion, Unchanged):
        told = "has the names of diffusers, and programs read GGUF with the authors' own"
        raise ExportError(f"{checkpoint.name}: {told}; export workbench.in_layout(model, 'original')")
    prefix = structure.prefix(DENOISER) if is_denoiser(checkpoint) else None
    return {key: key.removeprefix(prefix or "") for key in checkpoint}
