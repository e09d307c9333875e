"""Makes tests/golden/*.json: what transformers computes for the small models of tests/golden_cases.py.

Run it where requirements-golden.txt is installed: ``python tools/make_golden.py``. The weights are not stored:
they follow from a seed, and a hash of them is. The models are built by hand from the tensors of the GGUF files,
since transformers' own reader of such files takes neither LongRoPE's factors nor the window from them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from transformers import Phi3Config, Phi3ForCausalLM, PhiConfig, PhiForCausalLM

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from golden_cases import CASES, FOLDER, Case  # noqa: E402
from tiny_gguf import TinyPhi3  # noqa: E402

if TYPE_CHECKING:
    from tiny_phi2 import TinyPhi2


def phi3(options: TinyPhi3) -> Phi3ForCausalLM:
    """Phi-3 of transformers with these hyperparameters."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": options.freq_base}
    original = options.original_context_length or options.context_length
    if options.rope_dimension_count is not None:
        rope["partial_rotary_factor"] = options.rope_dimension_count / options.head_dim
    if options.rope_factors_short is not None and options.rope_factors_long is not None:
        rope |= {
            "rope_type": "longrope",
            "short_factor": list(options.rope_factors_short),
            "long_factor": list(options.rope_factors_long),
            "original_max_position_embeddings": original,
        }
    config = Phi3Config(
        vocab_size=options.vocabulary_size,
        hidden_size=options.embedding_length,
        intermediate_size=options.feed_forward_length,
        num_hidden_layers=options.block_count,
        num_attention_heads=options.head_count,
        num_key_value_heads=options.head_count_kv,
        max_position_embeddings=options.context_length,
        original_max_position_embeddings=original,
        rms_norm_eps=options.rms_epsilon,
        tie_word_embeddings=options.tied_output,
        sliding_window=options.sliding_window or None,
        rope_parameters=rope,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        attn_implementation="eager",
    )
    return Phi3ForCausalLM(config)


def phi2(options: TinyPhi2) -> PhiForCausalLM:
    """Phi of transformers with these hyperparameters."""
    partial = options.rope_dimension_count / options.head_dim
    config = PhiConfig(
        vocab_size=options.vocabulary_size,
        hidden_size=options.embedding_length,
        intermediate_size=options.feed_forward_length,
        num_hidden_layers=options.block_count,
        num_attention_heads=options.head_count,
        max_position_embeddings=options.context_length,
        layer_norm_eps=options.layer_norm_epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": partial},
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="eager",
    )
    return PhiForCausalLM(config)


_NAMES = {
    "token_embd": "model.embed_tokens",
    "output": "lm_head",
    "attn_output": {Phi3ForCausalLM: "self_attn.o_proj", PhiForCausalLM: "self_attn.dense"},
    "attn_norm": "input_layernorm",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_up": {Phi3ForCausalLM: "mlp.gate_up_proj", PhiForCausalLM: "mlp.fc1"},
    "ffn_down": {Phi3ForCausalLM: "mlp.down_proj", PhiForCausalLM: "mlp.fc2"},
    "output_norm": {Phi3ForCausalLM: "model.norm", PhiForCausalLM: "model.final_layernorm"},
}
"""A tensor's name in a GGUF file, and in a checkpoint."""


def state(model: torch.nn.Module, weights: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The tensors of a file under the names of a checkpoint."""
    tensors: dict[str, torch.Tensor] = {}
    for full_name, tensor in weights.items():
        if full_name.startswith("rope_factors"):
            continue
        *block, name, part = full_name.split(".")
        prefix = f"model.layers.{block[1]}." if block else ""
        renamed = _NAMES[name] if isinstance(_NAMES[name], str) else _NAMES[name][type(model)]
        if isinstance(model, PhiForCausalLM) and name == "attn_qkv":
            for letter, third in zip("qkv", np.split(tensor, 3), strict=True):
                tensors[f"{prefix}self_attn.{letter}_proj.{part}"] = torch.from_numpy(third.copy())
            continue
        tensors[f"{prefix}{renamed}.{part}"] = torch.from_numpy(tensor)
    if isinstance(model, Phi3ForCausalLM) and "output.weight" not in weights:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    return tensors


def compute(case: Case) -> dict[str, Any]:
    """What transformers says about a case."""
    model = phi3(case.model) if isinstance(case.model, TinyPhi3) else phi2(case.model)
    model.load_state_dict(state(model, case.weights()), strict=True)
    model.eval()
    ids = case.ids()
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    log_probabilities = torch.log_softmax(logits, dim=-1)[torch.arange(len(ids) - 1), ids[1:]]
    golden: dict[str, Any] = {
        "sha256": case.sha256(),
        "transformers": transformers.__version__,
        "torch": torch.__version__.split("+")[0],
        "log_probabilities": [round(float(value), 6) for value in log_probabilities[-(case.last or len(ids)) :]],
    }
    if case.prompt_tokens is not None:
        prompt = torch.tensor([ids[: case.prompt_tokens]])
        with torch.no_grad():
            generated = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=case.new_tokens,
                min_new_tokens=case.new_tokens,
                pad_token_id=0,
            )
        golden["greedy"] = generated[0, case.prompt_tokens :].tolist()
    return golden


def main() -> None:
    """Writes the files, or those of the cases that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], help="only these")
    chosen = parser.parse_args().cases or list(CASES)
    FOLDER.mkdir(exist_ok=True)
    for name in chosen:
        path = FOLDER / f"{name}.json"
        path.write_text(json.dumps(compute(CASES[name])) + "\n", encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
