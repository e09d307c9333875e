"""Writes the demo model as a GGUF file of the phi3 architecture, and reads it back."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from gguf.quants import dequantize, quantize

from demo_tokenizer import BOS, UNKNOWN, Tokenizer

Arrays = dict[str, npt.NDArray[np.float32]]

CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{'<|system|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
DESCRIPTION = (
    "A toy. A tiny phi3 model trained on generated dialogues, embedded in candle-phi to show and "
    "test the machinery: it writes haiku, counts, repeats words and remembers one."
)


@dataclass(frozen=True)
class ModelConfig:
    """The hyperparameters, under their GGUF names. Matrix dimensions are multiples of 256."""

    vocab_size: int = 1024
    context_length: int = 512
    embedding_length: int = 256
    feed_forward_length: int = 512
    block_count: int = 4
    head_count: int = 4
    head_count_kv: int = 2
    rms_epsilon: float = 1e-5
    rope_freq_base: float = 10000.0

    block_tensors = ("attn_norm", "attn_qkv", "attn_output", "ffn_norm", "ffn_up", "ffn_down")

    @property
    def head_dim(self) -> int:
        """Dimensions of one head; all of them rotate."""
        return self.embedding_length // self.head_count


def tensor_shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of the file with its shape, rows first."""
    width, ffn = model.embedding_length, model.feed_forward_length
    qkv_rows = (model.head_count + 2 * model.head_count_kv) * model.head_dim
    block: dict[str, tuple[int, ...]] = {
        "attn_norm": (width,),
        "attn_qkv": (qkv_rows, width),  # Q, K, V
        "attn_output": (width, width),
        "ffn_norm": (width,),
        "ffn_up": (2 * ffn, width),  # gate, up
        "ffn_down": (width, ffn),
    }
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (model.vocab_size, width)}
    for index in range(model.block_count):
        shapes |= {f"blk.{index}.{name}.weight": shape for name, shape in block.items()}
    return shapes | {"output_norm.weight": (width,), "output.weight": (model.vocab_size, width)}


def write_gguf(path: Path, model: ModelConfig, tokenizer: Tokenizer, arrays: Arrays) -> None:
    """Matrices as Q8_0, norms as F32, with the vocabulary and the chat template."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    writer = gguf.GGUFWriter(unfinished, "phi3")
    writer.add_name("candle-phi demo")
    writer.add_description(DESCRIPTION)
    writer.add_license("MIT")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(model.vocab_size)
    writer.add_context_length(model.context_length)
    writer.add_embedding_length(model.embedding_length)
    writer.add_feed_forward_length(model.feed_forward_length)
    writer.add_block_count(model.block_count)
    writer.add_head_count(model.head_count)
    writer.add_head_count_kv(model.head_count_kv)
    writer.add_layer_norm_rms_eps(model.rms_epsilon)
    writer.add_rope_dimension_count(model.head_dim)
    writer.add_rope_freq_base(model.rope_freq_base)
    writer.add_rope_scaling_orig_ctx_len(model.context_length)
    _add_tokenizer(writer, tokenizer)
    for name in tensor_shapes(model):
        array = np.ascontiguousarray(arrays[name], dtype=np.float32)
        if array.ndim == 1:
            writer.add_tensor(name, array)
        else:
            packed = quantize(array, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    unfinished.replace(path)  # at once: the old file may be mapped by someone


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    end_of_text = tokenizer.control("endoftext")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_scores(tokenizer.scores)
    writer.add_token_types(tokenizer.types)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(end_of_text)
    writer.add_unk_token_id(UNKNOWN)
    writer.add_pad_token_id(end_of_text)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
    writer.add_chat_template(CHAT_TEMPLATE)


def read_gguf(path: Path) -> tuple[ModelConfig, Tokenizer, Arrays]:
    """The model, its tokenizer, and its weights as float32."""
    reader = gguf.GGUFReader(path)

    def value(key: str) -> Any:
        return reader.fields[key].contents()

    model = ModelConfig(
        vocab_size=value("phi3.vocab_size"),
        context_length=value("phi3.context_length"),
        embedding_length=value("phi3.embedding_length"),
        feed_forward_length=value("phi3.feed_forward_length"),
        block_count=value("phi3.block_count"),
        head_count=value("phi3.attention.head_count"),
        head_count_kv=value("phi3.attention.head_count_kv"),
        rms_epsilon=value("phi3.attention.layer_norm_rms_epsilon"),
        rope_freq_base=value("phi3.rope.freq_base"),
    )
    keys = ("tokens", "scores", "token_type")
    tokenizer = Tokenizer(*(list(value(f"tokenizer.ggml.{key}")) for key in keys))
    return model, tokenizer, {t.name: np.array(dequantize(t.data, t.tensor_type)) for t in reader.tensors}
