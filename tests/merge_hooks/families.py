"""Tiny models of the classes that people merge today: text decoders, hybrids, mixtures of experts, multimodal ones.

    config = FAMILIES["qwen3_vl"]()             # a transformers config, small enough for a test
    folders = make_family("qwen3_vl", folder)   # related checkpoints, saved as transformers saves them

What each is for stands beside it. Shapes are such that vLLM's kernels take them, too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

VOCABULARY = 320
TEXT = {
    "vocab_size": VOCABULARY, "hidden_size": 128, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 4,
}  # fmt: skip
PLAIN = {key: value for key, value in TEXT.items() if key != "num_key_value_heads"}
TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
SIGLIP = TOWER | {"image_size": 28, "patch_size": 14}
QWEN_TOWER = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 4,
              "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 128}  # fmt: skip
QWEN_HYBRID = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 128,
               "linear_value_head_dim": 128, "head_dim": 32, "layer_types": ["linear_attention", "full_attention"]}  # fmt: skip
EXPERTS = {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}


def _config(name: str, **settings: Any) -> Any:
    import transformers

    return getattr(transformers, name)(**settings)


def _make(name: str, **settings: Any) -> Callable[[], Any]:
    return lambda: _config(name, **settings)


# Text decoders whose tensors mergekit's own tables name otherwise than the class holds them, and plain ones.
DENSE: dict[str, Callable[[], Any]] = {
    "llama": _make("LlamaConfig", **TEXT),
    "llama_tied": _make("LlamaConfig", **TEXT, tie_word_embeddings=True),
    "mistral": _make("MistralConfig", **TEXT),
    "ministral3": _make("Ministral3Config", **TEXT),
    "qwen2": _make("Qwen2Config", **TEXT),
    "qwen3": _make("Qwen3Config", **TEXT, head_dim=32),
    "gemma2": _make("Gemma2Config", **TEXT, head_dim=32),
    "gemma3_text": _make("Gemma3TextConfig", **TEXT, head_dim=32),
    "smollm3": _make("SmolLM3Config", **TEXT),
    "olmo2": _make("Olmo2Config", **TEXT),
    "olmo3": _make("Olmo3Config", **TEXT),
    "phi3": _make("Phi3Config", **TEXT),
    "phi4_mini": _make("Phi3Config", **TEXT, tie_word_embeddings=True),
    "granite": _make("GraniteConfig", **TEXT),
    "cohere": _make("CohereConfig", **TEXT),
    "cohere2": _make("Cohere2Config", **TEXT),
    "gpt_neox": _make("GPTNeoXConfig", **PLAIN),
    "apertus": _make("ApertusConfig", **TEXT),
    "exaone4": _make("Exaone4Config", **TEXT, head_dim=32),
    "bloom": _make("BloomConfig", vocab_size=VOCABULARY, hidden_size=128, n_layer=2, n_head=4),
    "falcon_7b": _make("FalconConfig", vocab_size=VOCABULARY, hidden_size=128, num_hidden_layers=2,
                       num_attention_heads=4, multi_query=True, parallel_attn=True, bias=False),
    "falcon_40b": _make("FalconConfig", vocab_size=VOCABULARY, hidden_size=128, num_hidden_layers=2,
                        num_attention_heads=4, num_kv_heads=2, new_decoder_architecture=True, bias=False),
    "gpt2": _make("GPT2Config", vocab_size=VOCABULARY, n_embd=128, n_layer=2, n_head=4, n_positions=256),
    "gpt_j": _make("GPTJConfig", vocab_size=VOCABULARY, n_embd=128, n_layer=2, n_head=4, n_positions=256, rotary_dim=8),
    "stablelm": _make("StableLmConfig", **TEXT),
    "stablelm2_12b": _make("StableLmConfig", **TEXT, qk_layernorm=True, use_parallel_residual=True),
    "starcoder2": _make("Starcoder2Config", **TEXT),
    "phi2": _make("PhiConfig", **TEXT),
    "glm4": _make("Glm4Config", **TEXT, head_dim=32),
    "opt": _make("OPTConfig", vocab_size=VOCABULARY, hidden_size=128, ffn_dim=96, num_hidden_layers=2,
                 num_attention_heads=4, max_position_embeddings=256, word_embed_proj_dim=128),
    "gpt_bigcode": _make("GPTBigCodeConfig", vocab_size=VOCABULARY, n_embd=128, n_layer=2, n_head=4, n_positions=256),
    "nemotron": _make("NemotronConfig", **TEXT),
    "seed_oss": _make("SeedOssConfig", **TEXT, head_dim=32),
}  # fmt: skip

# Linear attention, convolutions or state spaces beside attention.
HYBRIDS: dict[str, Callable[[], Any]] = {
    "qwen3_5": _make("Qwen3_5TextConfig", **TEXT, **QWEN_HYBRID),
    "qwen3_next": _make("Qwen3NextConfig", **TEXT, **QWEN_HYBRID, **EXPERTS, shared_expert_intermediate_size=32),
    "lfm2": _make("Lfm2Config", **TEXT, conv_dim=128, block_dim=128, layer_types=["conv", "full_attention"]),
    "granite_hybrid": _make("GraniteMoeHybridConfig", **TEXT, layer_types=["mamba", "attention"], num_local_experts=0,
                            shared_intermediate_size=96, mamba_n_heads=8, mamba_d_head=32, mamba_d_state=16,
                            mamba_n_groups=1, mamba_expand=2),
    "granite_hybrid_moe": _make("GraniteMoeHybridConfig", **TEXT, layer_types=["mamba", "attention"],
                                num_local_experts=4, num_experts_per_tok=2, shared_intermediate_size=32,
                                mamba_n_heads=8, mamba_d_head=32, mamba_d_state=16, mamba_n_groups=1, mamba_expand=2),
    "falcon_h1": _make("FalconH1Config", **TEXT, mamba_d_ssm=256, mamba_n_heads=8, mamba_d_head=32, mamba_d_state=16,
                       mamba_n_groups=1, mamba_expand=2),
    "nemotron_h": _make("NemotronHConfig", **{k: v for k, v in TEXT.items() if k != "num_hidden_layers"},
                        layers_block_type=["mamba", "attention", "mlp"], mamba_num_heads=8, mamba_head_dim=32,
                        ssm_state_size=16, n_groups=1, head_dim=32,
                        time_step_min=1e-9),  # transformers raises shorter steps to it; vLLM and NVIDIA's code do not
    "bamba": _make("BambaConfig", **TEXT, attn_layer_indices=[1], mamba_n_heads=8, mamba_d_head=32, mamba_d_state=16,
                   mamba_n_groups=1, mamba_expand=2),
    "recurrent_gemma": _make("RecurrentGemmaConfig", **TEXT, head_dim=32, block_types=["recurrent", "attention"],
                             lru_width=128, attention_window_size=64),
    "olmo_hybrid": _make("OlmoHybridConfig", **TEXT, layer_types=["linear_attention", "full_attention"]),
    "mamba2": _make("Mamba2Config", vocab_size=VOCABULARY, hidden_size=128, num_hidden_layers=2, num_heads=8, head_dim=32,
                    state_size=16, n_groups=1, expand=2),
}  # fmt: skip

MIXTURES: dict[str, Callable[[], Any]] = {
    "qwen3_moe": _make("Qwen3MoeConfig", **TEXT, **EXPERTS, head_dim=32),
    "qwen2_moe": _make("Qwen2MoeConfig", **TEXT, **EXPERTS, shared_expert_intermediate_size=32),
    "mixtral": _make("MixtralConfig", **TEXT, num_local_experts=4, num_experts_per_tok=2),
    "olmoe": _make("OlmoeConfig", **TEXT, num_experts=4, num_experts_per_tok=2),
    "granite_moe": _make("GraniteMoeConfig", **TEXT, num_local_experts=4, num_experts_per_tok=2),
    "gpt_oss": _make("GptOssConfig", **TEXT, head_dim=32, num_local_experts=4, num_experts_per_tok=2),
    "glm4_moe": _make("Glm4MoeConfig", **TEXT, head_dim=32, moe_intermediate_size=32, n_routed_experts=4,
                      num_experts_per_tok=2, n_shared_experts=1, first_k_dense_replace=1),
    "ernie_moe": _make("Ernie4_5_MoeConfig", **TEXT, moe_intermediate_size=32, moe_num_experts=4, moe_k=2,
                       moe_num_shared_experts=1, moe_layer_start_index=1),
    "deepseek_v3": _make("DeepseekV3Config", **{**TEXT, "num_key_value_heads": 4}, moe_intermediate_size=32,
                         n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1, topk_method="noaux_tc", scoring_func="sigmoid", first_k_dense_replace=1,
                         q_lora_rank=32, kv_lora_rank=32, qk_rope_head_dim=8, qk_nope_head_dim=16, v_head_dim=16),
    "phimoe": _make("PhimoeConfig", **TEXT, num_local_experts=4, num_experts_per_tok=2),
    "qwen3_5_moe": _make("Qwen3_5MoeTextConfig", **TEXT, **QWEN_HYBRID, **EXPERTS, shared_expert_intermediate_size=32),
}  # fmt: skip


def _of_two(
    name: str, text: tuple[str, dict[str, Any]], tower: tuple[str, dict[str, Any]], **more: Any
) -> Callable[[], Any]:
    def make() -> Any:
        return _config(name, text_config=_config(text[0], **text[1]).to_dict(),
                       vision_config=_config(tower[0], **tower[1]).to_dict(), **more)  # fmt: skip

    return make


ROPE_PARTS = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]}
MULTIMODAL: dict[str, Callable[[], Any]] = {
    "qwen3_vl": _of_two("Qwen3VLConfig", ("Qwen3VLTextConfig", {**TEXT, "head_dim": 32, "rope_parameters": ROPE_PARTS}),
                        ("Qwen3VLVisionConfig", QWEN_TOWER | {"deepstack_visual_indexes": [0, 1]}),
                        image_token_id=300, video_token_id=301, vision_start_token_id=302, vision_end_token_id=303),
    "qwen2_5_vl": _of_two("Qwen2_5_VLConfig", ("Qwen2_5_VLTextConfig", {**TEXT, "rope_parameters": ROPE_PARTS}),
                          ("Qwen2_5_VLVisionConfig", QWEN_TOWER | {"fullatt_block_indexes": [1], "window_size": 16}),
                          image_token_id=300, video_token_id=301, vision_start_token_id=302, vision_end_token_id=303),
    "qwen3_5_vl": _of_two("Qwen3_5Config", ("Qwen3_5TextConfig", {**TEXT, **QWEN_HYBRID}),
                          ("Qwen3_5VisionConfig", QWEN_TOWER),
                          image_token_id=300, video_token_id=301, vision_start_token_id=302, vision_end_token_id=303),
    "gemma3": _of_two("Gemma3Config", ("Gemma3TextConfig", {**TEXT, "head_dim": 32}), ("SiglipVisionConfig", SIGLIP),
                      mm_tokens_per_image=4, image_token_index=300, boi_token_index=301, eoi_token_index=302),
    "mistral3": _of_two("Mistral3Config", ("MistralConfig", {**TEXT, "head_dim": 32}),
                        ("PixtralVisionConfig", SIGLIP | {"head_dim": 16}), image_token_index=300),
    "llama4": _of_two("Llama4Config", ("Llama4TextConfig", {
        **TEXT, "head_dim": 32, "intermediate_size": 32, "intermediate_size_mlp": 96, "num_local_experts": 4,
        "num_experts_per_tok": 1, "interleave_moe_layer_step": 2, "attention_chunk_size": 64}),
        ("Llama4VisionConfig", {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2,
                                "num_attention_heads": 2, "image_size": 28, "patch_size": 14, "vision_output_dim": 32,
                                "projector_input_dim": 32, "projector_output_dim": 32}), image_token_index=300),
    "gemma4": _of_two("Gemma4Config", ("Gemma4TextConfig", {
        **TEXT, "head_dim": 32, "global_head_dim": 32, "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": VOCABULARY, "num_kv_shared_layers": 0}),
        ("Gemma4VisionConfig", TOWER | {"head_dim": 16, "num_key_value_heads": 2, "patch_size": 4,
                                        "pooling_kernel_size": 2}),
        image_token_id=300, boi_token_id=301, eoi_token_id=302),
}  # fmt: skip

FAMILIES = DENSE | HYBRIDS | MIXTURES | MULTIMODAL


def make_model(name: str, seed: int = 1) -> Any:
    """A model with random weights of a family, float32."""
    import torch
    import transformers

    config = FAMILIES[name]()
    torch.manual_seed(seed)
    for auto in (transformers.AutoModelForCausalLM, transformers.AutoModelForImageTextToText):
        if name in MULTIMODAL and auto is transformers.AutoModelForCausalLM:
            continue
        model = auto.from_config(config, dtype=torch.float32)
        break
    return model.eval()


def make_family(
    name: str, folder: Path, names: tuple[str, ...] = ("base", "one", "two"), step: float = 0.05
) -> dict[str, Path]:
    """Related checkpoints: the first, and others a small step away from it in every tensor."""
    import torch

    model, made = make_model(name), {}
    start = {key: value.detach().clone() for key, value in model.named_parameters()}
    generator = torch.Generator().manual_seed(2)
    for number, own in enumerate(names):
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(start[key] + (0.02 if number == 0 else step) * noise)
        made[own] = folder / own
        copy.deepcopy(model).save_pretrained(made[own])
    return made
