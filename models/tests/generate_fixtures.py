"""Makes tiny random checkpoints in Hugging Face layout, with what transformers computes from them.

Each case is a `config.json` written as it stands below (older and newer spellings, absent fields, explicit nulls), so
that defaults and precedence are those of transformers. All weights, biases and norms are random, from a seed that the
case's name gives. `expected.safetensors` holds `input_ids`, `hidden.i` (the input of decoder layer i; the last one is
the output of the last layer, before any final norm), `logits` and `loss` (mean over the shifted tokens), in f32 with
eager attention.

    pip install torch transformers==5.23.0 safetensors
    python generate_fixtures.py fixtures/generated          # the cases that are committed
    python generate_fixtures.py --all sweep                 # every case; then
    FISTA_PRUNER_MODEL_FIXTURES=$PWD/sweep cargo test --release -p fista-pruner-models --test reference

`--convert DIR` writes `model.safetensors` beside a `pytorch_model.bin` with the same tensors, for readers of the former.
`--activations FILE` writes `activations.json`.
`--expect DIR` computes `expected.safetensors` anew for a checkpoint that is there, on the `input_ids` that are there.
The folders llama1-style, llama3.1-style, mistral-style and qwen2-style were treated so: their first expectations came
from a model that had been cast to half precision and back, rotary frequencies included, which loading never does.
"""

import argparse
import json
import zlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.activations import ACT2FN

LLAMA = {
    "model_type": "llama",
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
MISTRAL = {**LLAMA, "model_type": "mistral"}
QWEN2 = {**LLAMA, "model_type": "qwen2"}
QWEN3 = {**LLAMA, "model_type": "qwen3", "head_dim": 12}
OPT = {
    "model_type": "opt",
    "vocab_size": 48,
    "hidden_size": 32,
    "ffn_dim": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "bos_token_id": 2,
}
OPT_350M = {**OPT, "do_layer_norm_before": False, "word_embed_proj_dim": 20}


def rope(kind, **parameters):
    return {"rope_parameters": {"rope_type": kind, **parameters}}


YARN = {"factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LONG = {
    "short_factor": [1.0, 1.1, 1.3, 1.7],
    "long_factor": [1.0, 2.0, 4.0, 7.5],
    "original_max_position_embeddings": 16,
}
HEAD16 = {"head_dim": 16}

# name: (configuration, tokens, committed). Heads have 8 features unless said otherwise.
CASES = {
    "llama-defaults": ({**LLAMA, "num_key_value_heads": None}, 24, False),
    "llama-architectures-only": (
        {**{k: v for k, v in LLAMA.items() if k != "model_type"}, "architectures": ["LlamaForCausalLM"]},
        24,
        False,
    ),
    "llama-theta-old": ({**LLAMA, "rope_theta": 500.0, "rope_scaling": None}, 24, False),
    "llama-theta-both": ({**LLAMA, "rope_theta": 500.0, **rope("default", rope_theta=90.0)}, 24, False),
    "llama-theta-beside": ({**LLAMA, "rope_theta": 500.0, **rope("linear", factor=2.0)}, 24, False),
    "llama-scaling-empty": ({**LLAMA, "rope_scaling": {}, **rope("linear", factor=3.0)}, 24, False),
    "llama-scaling-wins": (
        {**LLAMA, "rope_scaling": {"type": "linear", "factor": 3.0}, **rope("default", rope_theta=90.0)},
        24,
        False,
    ),
    "llama-linear-old": ({**LLAMA, "rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.5}}, 24, True),
    "llama-linear-new": ({**LLAMA, **rope("linear", factor=2.5, rope_theta=500.0)}, 24, False),
    "llama-dynamic-long": (
        {**LLAMA, "max_position_embeddings": 16, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
        40,
        True,
    ),
    "llama-dynamic-short": ({**LLAMA, **rope("dynamic", factor=2.0, rope_theta=777.0)}, 24, False),
    "llama-yarn": ({**LLAMA, **HEAD16, "rope_scaling": {"rope_type": "yarn", **YARN}}, 40, True),
    "llama-yarn-no-original": ({**LLAMA, **HEAD16, **rope("yarn", factor=4.0)}, 40, False),
    "llama-yarn-top-original": (
        {**LLAMA, **HEAD16, "original_max_position_embeddings": 8, **rope("yarn", **YARN)},
        40,
        False,
    ),
    "llama-yarn-attention-factor": ({**LLAMA, **HEAD16, **rope("yarn", attention_factor=0.8, **YARN)}, 40, False),
    "llama-yarn-mscale": (
        {**LLAMA, **HEAD16, **rope("yarn", mscale=0.707, mscale_all_dim=1.3, beta_fast=8, beta_slow=2, **YARN)},
        40,
        True,
    ),
    "llama-yarn-mscale-zero": ({**LLAMA, **HEAD16, **rope("yarn", mscale=1.0, mscale_all_dim=0, **YARN)}, 40, False),
    "llama-yarn-no-truncate": (
        {**LLAMA, **HEAD16, **rope("yarn", truncate=False, rope_theta=150000.0, beta_fast=4, **YARN)},
        40,
        True,
    ),
    "llama-yarn-factor-null": (
        {**LLAMA, **HEAD16, **rope("yarn", factor=None, original_max_position_embeddings=16)},
        40,
        False,
    ),
    "llama-yarn-small-factor": (
        {**LLAMA, **HEAD16, **rope("yarn", factor=1.0, original_max_position_embeddings=64)},
        40,
        False,
    ),
    "llama-llama3-old": ({**LLAMA, **HEAD16, "rope_theta": 500.0, "rope_scaling": {"rope_type": "llama3", **LLAMA3}}, 40, False),
    "llama-llama3-new": ({**LLAMA, **HEAD16, **rope("llama3", rope_theta=500.0, **LLAMA3)}, 40, True),
    "llama-longrope-short": ({**LLAMA, **rope("longrope", **LONG)}, 16, False),
    "llama-longrope-long": ({**LLAMA, **rope("longrope", **LONG)}, 24, True),
    "llama-longrope-factors": ({**LLAMA, **rope("longrope", factor=3.0, attention_factor=1.25, **LONG)}, 24, False),
    "llama-proportional": ({**LLAMA, **HEAD16, **rope("proportional", partial_rotary_factor=0.5, factor=2.0)}, 24, True),
    "llama-partial-ignored": ({**LLAMA, "partial_rotary_factor": 0.5}, 24, False),
    "llama-partial-ignored-new": ({**LLAMA, **rope("default", partial_rotary_factor=0.25)}, 24, False),
    "llama-head-dim": ({**LLAMA, "head_dim": 20}, 24, True),
    "llama-head-dim-null": ({**LLAMA, "head_dim": None}, 24, False),
    "llama-one-kv-head": ({**LLAMA, "num_key_value_heads": 1}, 24, False),
    "llama-biases": (
        {**LLAMA, "attention_bias": True, "mlp_bias": True, "pretraining_tp": 2, "rms_norm_eps": 0.01},
        24,
        True,
    ),
    "llama-tied": ({**LLAMA, "tie_word_embeddings": True}, 24, False),
    "llama-prelu": ({**LLAMA, "hidden_act": "prelu"}, 16, True),
    "llama-xielu": ({**LLAMA, "hidden_act": "xielu"}, 16, True),
    "mistral-window": ({**MISTRAL, "sliding_window": 5}, 24, True),
    "mistral-window-one": ({**MISTRAL, "sliding_window": 1}, 24, False),
    "mistral-window-null": ({**MISTRAL, "sliding_window": None, "head_dim": 12}, 24, False),
    "mistral-window-absent": ({**MISTRAL, "rope_theta": 1e6}, 24, False),
    "mistral-long-window": ({**MISTRAL, "sliding_window": 150, "max_position_embeddings": 512}, 300, False),
    "qwen2-window": (
        {**QWEN2, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
        24,
        True,
    ),
    "qwen2-window-all": (
        {**QWEN2, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 0},
        24,
        False,
    ),
    "qwen2-window-unused": ({**QWEN2, "use_sliding_window": False, "sliding_window": 6, "max_window_layers": 0}, 24, False),
    "qwen2-layer-types": (
        {
            **QWEN2,
            "use_sliding_window": True,
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention"],
            "tie_word_embeddings": True,
        },
        24,
        True,
    ),
    "qwen2-head-dim": ({**QWEN2, "head_dim": 12}, 24, False),
    "qwen2-yarn": ({**QWEN2, **HEAD16, "rope_scaling": {"type": "yarn", **YARN}}, 40, False),
    "qwen3-bias-tied": ({**QWEN3, "attention_bias": True, "tie_word_embeddings": True}, 24, True),
    "qwen3-window": (
        {**QWEN3, "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1},
        24,
        False,
    ),
    "qwen3-head-dim-absent": ({**{k: v for k, v in QWEN3.items() if k != "head_dim"}, "num_attention_heads": 2}, 24, False),
    "qwen3-uneven": ({**QWEN3, "hidden_size": 30}, 24, False),
    "opt-defaults": (OPT, 24, False),
    "opt-full-length": (OPT, 32, False),
    "opt-no-bias": ({**OPT, "enable_bias": False}, 24, True),
    "opt-no-affine": ({**OPT, "layer_norm_elementwise_affine": False, "activation_function": "gelu"}, 24, True),
    "opt-no-final-norm": ({**OPT, "_remove_final_layer_norm": True, "tie_word_embeddings": False}, 24, True),
    "opt-prelu": ({**OPT, "activation_function": "prelu"}, 24, False),
    "opt-projected": ({**OPT, "word_embed_proj_dim": 20}, 24, True),
    "opt-350m": (OPT_350M, 24, False),
    "opt-350m-square": ({**OPT_350M, "word_embed_proj_dim": 32}, 24, False),
    "opt-350m-bare": (
        {**OPT_350M, "enable_bias": False, "layer_norm_elementwise_affine": False, "activation_function": "silu"},
        24,
        True,
    ),
    "opt-350m-untied": ({**OPT_350M, "tie_word_embeddings": False, "_remove_final_layer_norm": True}, 24, False),
}
for act in (
    "gelu gelu_10 gelu_fast gelu_new gelu_python gelu_pytorch_tanh gelu_python_tanh gelu_accurate hardswish laplace "
    "leaky_relu linear mish quick_gelu relu relu2 relu6 sigmoid silu sqrtsoftplus swish tanh"
).split():
    CASES[f"act-{act}"] = ({**LLAMA, "hidden_act": act}, 16, False)


def randomize(model, generator):
    """No parameter stays at its initial value: norms around 1, biases around 0, weights large enough to matter."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.copy_(1.0 + 0.3 * noise)
            elif "act" in name:
                parameter.copy_(0.3 + 0.2 * noise)
            elif "embed" in name:
                parameter.copy_(0.7 * noise)
            else:
                parameter.copy_(0.25 * noise)


def outputs(model, ids):
    """What the model computes: see the top of the file."""
    stack = model.model.decoder.layers if hasattr(model.model, "decoder") else model.model.layers
    hidden = {}

    def keep(index):
        def hook(_module, inputs, output):
            hidden[index] = inputs[0].detach().clone().contiguous()
            value = output[0] if isinstance(output, tuple) else output
            hidden[index + 1] = value.detach().clone().contiguous()

        return hook

    hooks = [layer.register_forward_hook(keep(i)) for i, layer in enumerate(stack)]
    with torch.no_grad():
        result = model(input_ids=ids, labels=ids)
    for hook in hooks:
        hook.remove()
    expected = {f"hidden.{i}": value for i, value in hidden.items()}
    expected |= {"input_ids": ids, "logits": result.logits.contiguous(), "loss": result.loss.reshape(1)}
    return expected


def generate(out, name, config, tokens):
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config, indent=1)
    (folder / "config.json").write_text(text + "\n")
    if "model_type" in config:
        parsed = AutoConfig.from_pretrained(folder)
    else:  # AutoConfig itself needs one
        parsed = AutoConfig.for_model("llama", **config)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    model = AutoModelForCausalLM.from_config(parsed, attn_implementation="eager").float().eval()
    randomize(model, generator)
    ids = torch.randint(0, config["vocab_size"], (2, tokens), generator=generator)
    save_file(outputs(model, ids), folder / "expected.safetensors")
    state = {k: v.detach().clone().contiguous() for k, v in model.state_dict().items()}
    if parsed.tie_word_embeddings:
        del state["lm_head.weight"]
    save_file(state, folder / "model.safetensors")


def convert(folder):
    state = torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)
    save_file({k: v.clone().contiguous() for k, v in state.items()}, folder / "model.safetensors")


def activations(file):
    """Every activation at points that tell the names apart, where exponentials overflow and underflow included."""
    x = [-120.0, -20.5, -10.0, -3.0, -2.9, -1.0, -0.3, -1e-3, 0.0, 1e-3, 0.5, 1.7, 2.95, 3.0, 5.9, 10.5, 21.0, 120.0]
    parameters, values = {}, {}
    for name in sorted(ACT2FN):
        function = ACT2FN[name].float()
        with torch.no_grad():
            for parameter, value in function.named_parameters():
                parameters[f"{name}.{parameter}"] = value.item()
            values[name] = function(torch.tensor(x)).tolist()
    file.write_text(json.dumps({"x": x, "parameters": parameters, "values": values}, indent=0) + "\n")


def expect(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    ids = load_file(folder / "expected.safetensors")["input_ids"]
    save_file(outputs(model, ids), folder / "expected.safetensors")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="every case, not only the committed ones")
    parser.add_argument("--convert", action="store_true", help="convert OUT/pytorch_model.bin instead")
    parser.add_argument("--expect", action="store_true", help="compute OUT/expected.safetensors anew instead")
    parser.add_argument("--activations", action="store_true", help="write the activations' values to OUT instead")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    if arguments.convert:
        return convert(arguments.out)
    if arguments.activations:
        return activations(arguments.out)
    if arguments.expect:
        return expect(arguments.out)
    for name, (config, tokens, committed) in CASES.items():
        if arguments.all or committed:
            generate(arguments.out, name, config, tokens)


if __name__ == "__main__":
    main()
