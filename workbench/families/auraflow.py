"""AuraFlow, and Pony V7, which was trained from it."""

from workbench.families.blocks import Stacks
from workbench.families.declaration import Encoder, Family, ModelSpec, Pictures
from workbench.families.known import register
from workbench.families.tracing import Traced

_NAMES = """
register_tokens positional_encoding init_x_linear.{weight,bias} t_embedder.mlp.{0,2}.{weight,bias} cond_seq_linear.weight
double_layers.#.{attn.w{1,2}{q,k,v,o},mlp{X,C}.{c_fc1,c_fc2,c_proj},mod{X,C}.1}.weight
single_layers.#.{attn.w1{q,k,v,o},mlp.{c_fc1,c_fc2,c_proj},modCX.1}.weight
final_linear.weight modF.1.weight
"""

FAMILY = register(
    Family(
        "AuraFlow",
        original=("double_layers.", "single_layers.#.modCX.", "cond_seq_linear."),
        diffusers=("joint_transformer_blocks.", ("register_tokens", "single_transformer_blocks.")),
        text_encoders={"text_encoder": Encoder("text_encoders.pile_t5xl.transformer.")},
        blocks=Stacks(("double_layers.#", "joint_transformer_blocks.#"), ("single_layers.#", "single_transformer_blocks.#")),
        conversion=Traced("AuraFlowTransformer2DModel", _NAMES),
        prediction="flow",
        dtype="float16",
        modelspec=ModelSpec("auraflow-v0.3", "https://huggingface.co/fal/AuraFlow-v0.3", "1024x1024"),
        gguf="aura",
        model="AuraFlowTransformer2DModel",
        pipeline="AuraFlowPipeline",
        configs="hf://fal/AuraFlow-v0.3",
        pictures=Pictures(1024, 30, 3.5),
    )
)
