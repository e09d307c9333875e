"""Trains the embedded demo model and writes it as a GGUF file, with its measured figures.

    pip install -r tools/requirements-demo.txt
    python tools/train_demo.py

The model is a tiny phi3: the machinery of the real ones, and a toy in all that it says.
Weights are a dict of tensors under their GGUF names, so that one `forward` serves the
training and the evaluation of what was read back from the file.
"""

import argparse
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

import demo_corpus
from demo_corpus import Message
from demo_export import ModelConfig, read_gguf, tensor_shapes, write_gguf
from demo_tokenizer import BOS, Tokenizer, build_tokenizer

DEFAULT_OUTPUT = Path(__file__).parents[1] / "python/candle_phi/demo/candle-phi-demo.gguf"
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class TrainConfig:
    """How the model is trained. One step sees ``tokens_per_step`` tokens."""

    seed: int = 3
    steps: int = 4000
    tokens_per_step: int = 3072
    row_length: int = 256
    long_row_length: int = 512  # every `long_row_every`-th step, with longer dialogues
    long_row_every: int = 8
    matrix_learning_rate: float = 0.02  # Muon, on the matrices of the blocks
    learning_rate: float = 3e-3  # AdamW, on embeddings and norms
    warmup_steps: int = 100
    decay_fraction: float = 0.6  # of the steps, at the end, in which both rates fall to zero
    weight_decay: float = 0.01
    bfloat16: bool = True  # matrix products of the training; the evaluation is in float32
    threads: int = 2


# ---------------------------------------------------------------- data


def dialogue_tokens(tokenizer: Tokenizer, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
    """Ids of a dialogue, and which of them the model has to say."""
    ids: list[int] = []
    learned: list[bool] = []
    for message in messages:
        if message.role == "text":
            text = [*tokenizer.encode(message.content), tokenizer.control("endoftext")]
            return [BOS, *text], [False] + [True] * len(text)
        text = [*tokenizer.encode(message.content), tokenizer.control("end")]
        ids += [tokenizer.control(message.role), *text]
        learned += [False] + [message.role == "assistant"] * len(text)
    return ids, learned


@dataclass(frozen=True)
class Batch:
    """Rows of packed dialogues; a token sees the earlier ones of its own dialogue."""

    ids: Tensor  # (batch, seq)
    learned: Tensor  # (batch, seq) bool: the model has to say this token
    dialogue: Tensor  # (batch, seq) which dialogue of the row


def batches(config: TrainConfig, tokenizer: Tokenizer) -> Iterator[Batch]:
    """Endless batches of fresh dialogues, the same ones for the same seed."""
    rng = random.Random(config.seed)
    step = 0
    while True:
        is_long = step % config.long_row_every == config.long_row_every - 1
        length = config.long_row_length if is_long else config.row_length
        rows = [
            _row(rng, tokenizer, length, 24 if is_long else 6) for _ in range(config.tokens_per_step // length)
        ]
        ids, learned, dialogue = (torch.tensor(part) for part in zip(*rows, strict=True))
        yield Batch(ids, learned, dialogue)
        step += 1


def _row(
    rng: random.Random, tokenizer: Tokenizer, length: int, max_turns: int
) -> tuple[list[int], list[bool], list[int]]:
    ids: list[int] = []
    learned: list[bool] = []
    dialogue: list[int] = []
    for index, entry in enumerate(demo_corpus.training_dialogues(rng.getrandbits(48), length, max_turns)):
        new_ids, new_learned = dialogue_tokens(tokenizer, entry.messages)
        if new_ids[0] != BOS and rng.random() < 0.5:
            new_ids, new_learned = [BOS, *new_ids], [False, *new_learned]
        ids += new_ids
        learned += new_learned
        dialogue += [index] * len(new_ids)
        if len(ids) >= length:
            break
    return ids[:length], learned[:length], dialogue[:length]


# ---------------------------------------------------------------- model


def initial_weights(model: ModelConfig, seed: int) -> Weights:
    """Norms of one, matrices of small noise, smaller where a block adds to the stream."""
    generator = torch.Generator().manual_seed(seed)
    weights: Weights = {}
    for name, shape in tensor_shapes(model).items():
        if len(shape) == 1:
            weights[name] = torch.ones(shape)
            continue
        scale = 0.02 if "token_embd" in name else shape[1] ** -0.5 * 0.7
        if "attn_output" in name or "ffn_down" in name:
            scale /= math.sqrt(2 * model.block_count)
        weights[name] = torch.randn(shape, generator=generator) * scale
    return weights


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm over the last dimension."""
    return functional.rms_norm(x, (x.shape[-1],), weight, eps)


def rope_table(model: ModelConfig, length: int) -> tuple[Tensor, Tensor]:
    """Cos and sin for the rotate-half form: (seq, head_dim / 2) each."""
    half = model.head_dim // 2
    frequency = model.rope_freq_base ** -(torch.arange(half) / half)
    angle = torch.outer(torch.arange(length).float(), frequency)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of (batch, heads, seq, head_dim), the halves paired."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def attention(model: ModelConfig, qkv: Tensor, mask: Tensor | None, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Grouped-query attention from fused rows Q, K, V: (batch, seq, heads * head_dim)."""
    batch, length, _ = qkv.shape
    heads, heads_kv = model.head_count, model.head_count_kv
    split = qkv.view(batch, length, heads + 2 * heads_kv, model.head_dim).transpose(1, 2)
    q, k, v = split.split((heads, heads_kv, heads_kv), dim=1)
    q, k = rotate(q, *rope), rotate(k, *rope)
    k, v = (part.repeat_interleave(heads // heads_kv, dim=1) for part in (k, v))
    out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
    return out.transpose(1, 2).reshape(batch, length, -1)


def forward(model: ModelConfig, weights: Weights, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """The normed last hidden state: (batch, seq, embedding). Causal where no mask is given."""
    rope = rope_table(model, ids.shape[1])
    x = weights["token_embd.weight"][ids]
    for block in range(model.block_count):
        w = {name: weights[f"blk.{block}.{name}.weight"] for name in model.block_tensors}
        qkv = functional.linear(rms_norm(x, w["attn_norm"], model.rms_epsilon), w["attn_qkv"])
        x = x + functional.linear(attention(model, qkv, mask, rope), w["attn_output"])
        gate, up = functional.linear(rms_norm(x, w["ffn_norm"], model.rms_epsilon), w["ffn_up"]).chunk(2, dim=-1)
        x = x + functional.linear(functional.silu(gate) * up, w["ffn_down"])
    return rms_norm(x, weights["output_norm.weight"], model.rms_epsilon)


def loss_of(model: ModelConfig, weights: Weights, batch: Batch) -> Tensor:
    """Cross entropy of the tokens that the model has to say."""
    same = batch.dialogue[:, :, None] == batch.dialogue[:, None, :]
    mask = same.tril()[:, None]  # (batch, 1, seq, seq)
    hidden = forward(model, weights, batch.ids, mask)
    learned = batch.learned[:, 1:]
    logits = functional.linear(hidden[:, :-1][learned], weights["output.weight"])
    return functional.cross_entropy(logits, batch.ids[:, 1:][learned])


# ---------------------------------------------------------------- training


def rate_at(config: TrainConfig, step: int) -> float:
    """The fraction of the learning rates: a warmup, a plateau, and a straight way down to zero."""
    decay_steps = config.decay_fraction * config.steps
    return min(1.0, (step + 1) / config.warmup_steps, (config.steps - step) / decay_steps)


def optimizers(config: TrainConfig, weights: Weights) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for everything else."""
    matrices = [w for name, w in weights.items() if name.startswith("blk.") and w.dim() == 2]
    others = [w for name, w in weights.items() if not (name.startswith("blk.") and w.dim() == 2)]
    return [
        torch.optim.Muon(matrices, lr=config.matrix_learning_rate, weight_decay=config.weight_decay),
        torch.optim.AdamW(others, lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98)),
    ]


def train(model: ModelConfig, config: TrainConfig, tokenizer: Tokenizer) -> Weights:
    """The trained weights, in float32."""
    weights = {name: tensor.requires_grad_() for name, tensor in initial_weights(model, config.seed).items()}
    steppers = optimizers(config, weights)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(stepper, lambda step: rate_at(config, step)) for stepper in steppers
    ]
    started = time.perf_counter()
    running = 0.0
    for step, batch in zip(range(config.steps), batches(config, tokenizer), strict=False):
        with torch.autocast("cpu", torch.bfloat16, enabled=config.bfloat16):
            loss = loss_of(model, weights, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        for stepper, schedule in zip(steppers, schedules, strict=True):
            stepper.step()
            stepper.zero_grad()
            schedule.step()
        running += loss.item()
        if (step + 1) % 50 == 0:
            elapsed = time.perf_counter() - started
            print(f"step {step + 1}/{config.steps}  loss {running / 50:.4f}  {elapsed:.0f} s", flush=True)
            running = 0.0
    return {name: tensor.detach() for name, tensor in weights.items()}


# ---------------------------------------------------------------- evaluation


@torch.no_grad()
def answer(
    model: ModelConfig, weights: Weights, tokenizer: Tokenizer, messages: Sequence[Message], max_tokens: int = 120
) -> tuple[str, bool]:
    """The greedy answer to a dialogue, and whether ``<|end|>`` ended it."""
    ids = [BOS, *dialogue_tokens(tokenizer, messages)[0], tokenizer.control("assistant")]
    start = len(ids)
    while len(ids) < start + max_tokens:
        hidden = forward(model, weights, torch.tensor([ids]))[0, -1]
        best = int((weights["output.weight"] @ hidden).argmax())
        if best == tokenizer.control("end"):
            return tokenizer.decode(ids[start:]), True
        ids.append(best)
    return tokenizer.decode(ids[start:]), False


def evaluate(path: Path) -> None:
    """Prints the figures of the model in the file, with the weights as they are there."""
    model, tokenizer, arrays = read_gguf(path)
    weights = {name: torch.from_numpy(array) for name, array in arrays.items()}

    def ask(*contents: str) -> tuple[str, bool]:
        roles = ("user", "assistant")
        return answer(model, weights, tokenizer, [Message(roles[i % 2], text) for i, text in enumerate(contents)])

    ended = 0
    right: dict[str, list[bool]] = {}
    for prompt in demo_corpus.held_out_prompts():
        text, stopped = ask(prompt.text)
        passed = stopped and demo_corpus.check(prompt, text)
        ended += stopped
        right.setdefault(prompt.kind, []).append(passed)
        if not passed:
            print(f"  wrong ({prompt.kind}): {prompt.text!r} -> {text!r}")
    repeated = 0
    exchanges = demo_corpus.held_out_exchanges()
    for exchange in exchanges:
        first, _ = ask(exchange.first)
        second, stopped = ask(exchange.first, first, exchange.second)
        passed = stopped and demo_corpus.check_exchange(exchange, second)
        repeated += passed
        if not passed:
            print(f"  wrong: {exchange.first!r} -> {first!r}, {exchange.second!r} -> {second!r}")
    total = sum(len(results) for results in right.values())
    for kind, results in right.items():
        print(f"{kind}: {sum(results)} of {len(results)}")
    print(f"right form: {sum(map(sum, right.values()))} of {total} held-out prompts")
    print(f"ended by <|end|>: {ended} of {total}")
    print(f"repeated the word: {repeated} of {len(exchanges)} held-out exchanges")
    for text in ("Write a haiku about ice hockey", "Count from 3 to 7", "Are you a toy?"):
        print(f"> {text}\n{ask(text)[0]}")


def main() -> None:
    """Trains, writes the file, prints its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT)
    parser.add_argument("--steps", type=int, default=TrainConfig.steps)
    parser.add_argument("--threads", type=int, default=TrainConfig.threads)
    parser.add_argument("--evaluate-only", action="store_true", help="the figures of a file that is there")
    arguments = parser.parse_args()
    config = TrainConfig(steps=arguments.steps, threads=arguments.threads)
    torch.set_num_threads(config.threads)
    if not arguments.evaluate_only:
        model = ModelConfig()
        texts = {m.content for d in demo_corpus.training_dialogues(config.seed, 8000) for m in d.messages}
        tokenizer = build_tokenizer(sorted(texts), model.vocab_size)
        weights = train(model, config, tokenizer)
        write_gguf(arguments.output, model, tokenizer, {name: w.numpy() for name, w in weights.items()})
    evaluate(arguments.output)


if __name__ == "__main__":
    main()
