//! `config.json`: defaults, spellings, and a clear error for everything that cannot be run.

#![allow(clippy::unwrap_used)]

use fista_pruner_models::{
    ActivationKind, Family, LlamaConfig, ModelConfig, ModelError, OptConfig, RopeScaling,
};
use serde_json::{Value, json};

fn parse(config: &Value) -> Result<ModelConfig, ModelError> {
    ModelConfig::from_json(&config.to_string())
}

fn llama(config: Value) -> LlamaConfig {
    match parse(&config).unwrap() {
        ModelConfig::Llama(config) => config,
        other => panic!("{other:?}"),
    }
}

fn opt(config: Value) -> OptConfig {
    match parse(&config).unwrap() {
        ModelConfig::Opt(config) => config,
        other => panic!("{other:?}"),
    }
}

#[test]
fn absent_fields_are_as_in_transformers() {
    let config = llama(json!({"model_type": "llama"}));
    assert_eq!(
        (config.vocab_size, config.hidden_size, config.intermediate_size),
        (32000, 4096, 11008)
    );
    assert_eq!(
        (config.num_layers, config.num_heads, config.num_kv_heads),
        (32, 32, 32)
    );
    assert_eq!((config.head_dim, config.max_positions), (128, 2048));
    assert_eq!((config.norm_epsilon, config.rope.theta), (1e-6, 10000.0));
    assert_eq!(config.rope.scaling, RopeScaling::Default);
    assert_eq!(config.activation, ActivationKind::Silu);
    assert!(!config.qkv_bias && !config.o_bias && !config.mlp_bias && !config.qk_norm);
    assert!(!config.tied_head && config.windows == vec![None; 32]);

    let config = llama(json!({"model_type": "mistral"}));
    assert_eq!((config.intermediate_size, config.num_kv_heads), (14336, 8));
    assert_eq!((config.max_positions, config.windows[31]), (131_072, Some(4096)));

    let config = llama(json!({"model_type": "qwen2"}));
    assert_eq!((config.vocab_size, config.intermediate_size), (151_936, 22016));
    assert_eq!((config.num_kv_heads, config.max_positions), (32, 32768));
    assert!(config.qkv_bias && !config.o_bias && config.windows == vec![None; 32]);
    let sliding = json!({"model_type": "qwen2", "use_sliding_window": true});
    let windows = llama(sliding).windows;
    assert_eq!((windows[27], windows[28]), (None, Some(4096)));

    let config = llama(json!({"model_type": "qwen3", "hidden_size": 1000}));
    assert_eq!(config.head_dim, 128);
    assert!(config.qk_norm && !config.qkv_bias);

    let config = opt(json!({"model_type": "opt"}));
    assert_eq!(
        (config.vocab_size, config.hidden_size, config.ffn_dim),
        (50272, 768, 3072)
    );
    assert_eq!(
        (config.num_layers, config.num_heads, config.max_positions),
        (12, 12, 2048)
    );
    assert_eq!(
        (config.embedding_size, config.activation),
        (768, ActivationKind::Relu)
    );
    assert!(config.norm_first && config.final_norm && config.bias && config.norm_affine);
    assert!(config.tied_head);
    let late = opt(json!({"model_type": "opt", "do_layer_norm_before": false}));
    assert!(!late.norm_first && !late.final_norm);
}

#[test]
fn the_family_is_told_by_type_then_by_architecture() {
    for (config, family) in [
        (json!({"model_type": "opt"}), Family::Opt),
        (json!({"architectures": ["OPTForCausalLM"]}), Family::Opt),
        (json!({"architectures": ["LLaMAForCausalLM"]}), Family::Llama),
        (
            json!({"model_type": null, "architectures": ["MistralForCausalLM"]}),
            Family::Mistral,
        ),
        (
            json!({"model_type": "qwen2", "architectures": ["Other"]}),
            Family::Qwen2,
        ),
        (json!({"architectures": ["Qwen3ForCausalLM"]}), Family::Qwen3),
    ] {
        assert_eq!(parse(&config).unwrap().family(), family, "{config}");
    }
    assert_eq!(Family::Qwen3.to_string(), "qwen3");
    assert_eq!(serde_json::to_string(&Family::Opt).unwrap(), "\"opt\"");
}

#[test]
fn operator_groups_are_the_order_of_evaluation() {
    let names = |config: Value| -> Vec<Vec<&str>> {
        let groups = parse(&config).unwrap().operator_groups();
        groups
            .iter()
            .map(|g| g.iter().map(|o| o.name).collect())
            .collect()
    };
    assert_eq!(
        names(json!({"model_type": "qwen3"})),
        [
            vec!["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
            vec!["self_attn.o_proj"],
            vec!["mlp.gate_proj", "mlp.up_proj"],
            vec!["mlp.down_proj"],
        ]
    );
    assert_eq!(
        names(json!({"model_type": "opt"})),
        [
            vec!["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
            vec!["self_attn.out_proj"],
            vec!["fc1"],
            vec!["fc2"],
        ]
    );
}

/// A LLaMA configuration with some fields changed.
fn changed(changes: Value) -> Value {
    let mut config = json!({"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4,
        "num_key_value_heads": 2, "num_hidden_layers": 2, "vocab_size": 10, "intermediate_size": 8});
    for (name, value) in changes.as_object().unwrap() {
        config[name] = value.clone();
    }
    config
}

#[test]
fn what_is_wrong_is_an_error_that_names_the_field() {
    let rope = |kind: &str| json!({"rope_parameters": {"rope_type": kind}});
    for (changes, named) in [
        (json!({"hidden_size": 0}), "hidden_size"),
        (json!({"hidden_size": 62}), "num_attention_heads"),
        (json!({"hidden_size": -64}), "hidden_size"),
        (json!({"hidden_size": 64.5}), "hidden_size"),
        (json!({"hidden_size": "64"}), "hidden_size"),
        (json!({"hidden_size": null}), "hidden_size"),
        (json!({"vocab_size": 0}), "vocab_size"),
        (json!({"num_hidden_layers": 0}), "num_hidden_layers"),
        (json!({"num_attention_heads": 0}), "num_attention_heads"),
        (json!({"num_key_value_heads": 3}), "num_key_value_heads"),
        (json!({"num_key_value_heads": 8}), "num_key_value_heads"),
        (json!({"num_key_value_heads": 0}), "num_key_value_heads"),
        (json!({"intermediate_size": 0}), "intermediate_size"),
        (json!({"max_position_embeddings": 0}), "max_position_embeddings"),
        (json!({"head_dim": 0}), "head_dim"),
        (json!({"head_dim": 15}), "head_dim"),
        (json!({"rms_norm_eps": -1.0}), "rms_norm_eps"),
        (json!({"rms_norm_eps": "tiny"}), "rms_norm_eps"),
        (json!({"attention_bias": 1}), "attention_bias"),
        (json!({"hidden_act": 3}), "hidden_act"),
        (json!({"rope_theta": 0}), "rope_theta"),
        (json!({"rope_scaling": 2}), "rope_scaling"),
        (rope("linear"), "factor"),
        (rope("dynamic"), "factor"),
        (rope("yarn"), "factor"),
        (rope("llama3"), "factor"),
        (rope("longrope"), "short_factor"),
        (
            json!({"head_dim": 2, "rope_scaling": {"type": "dynamic", "factor": 2.0}}),
            "head_dim",
        ),
        (
            json!({"rope_scaling": {"type": "longrope", "short_factor": [1], "long_factor": [1]}}),
            "short_factor",
        ),
        (
            json!({"rope_scaling": {"type": "linear", "factor": -2.0}}),
            "rope_scaling.factor",
        ),
        (
            json!({"model_type": "mistral", "sliding_window": 0}),
            "sliding_window",
        ),
        (
            json!({"model_type": "qwen2", "layer_types": ["full_attention"]}),
            "layer_types",
        ),
        (
            json!({"model_type": "qwen3", "layer_types": ["full_attention", "sliding_attention"]}),
            "layer_types",
        ),
        (
            json!({"model_type": "opt", "num_attention_heads": 5}),
            "num_attention_heads",
        ),
        (
            json!({"model_type": "opt", "word_embed_proj_dim": 0}),
            "word_embed_proj_dim",
        ),
    ] {
        let error = parse(&changed(changes.clone())).unwrap_err();
        assert!(matches!(error, ModelError::Config(_)), "{changes}: {error}");
        assert!(error.to_string().contains(named), "{changes}: {error}");
    }
}

#[test]
fn what_is_not_supported_says_what_is() {
    for (changes, named, alternative) in [
        (json!({"model_type": "gpt2"}), "gpt2", "qwen3"),
        (json!({"model_type": "Llama"}), "Llama", "llama"),
        (
            json!({"model_type": null, "architectures": ["BloomForCausalLM"]}),
            "Bloom",
            "opt",
        ),
        (json!({"hidden_act": "swiglu"}), "swiglu", "gelu_new"),
        (json!({"rope_scaling": {"type": "mrope"}}), "mrope", "yarn"),
        (
            json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}),
            "full_attention",
            "yarn",
        ),
        (
            json!({"partial_rotary_factor": 0.5, "rope_scaling": {"type": "linear", "factor": 2}}),
            "0.5",
            "1.0",
        ),
        (
            json!({"model_type": "qwen2", "layer_types": ["full_attention", "chunked_attention"]}),
            "chunked_attention",
            "sliding_attention",
        ),
        (
            json!({"quantization_config": {"quant_method": "gptq"}}),
            "gptq",
            "bf16",
        ),
    ] {
        let error = parse(&changed(changes.clone())).unwrap_err();
        assert!(
            matches!(error, ModelError::Unsupported { .. }),
            "{changes}: {error}"
        );
        let text = error.to_string();
        assert!(
            text.contains(named) && text.contains(alternative),
            "{changes}: {text}"
        );
    }
}

#[test]
fn text_that_is_no_configuration_is_an_error() {
    for text in [
        "",
        "[]",
        "{",
        "3",
        "{}",
        r#"{"model_type": 3}"#,
        r#"{"architectures": "Llama"}"#,
    ] {
        assert!(
            matches!(ModelConfig::from_json(text), Err(ModelError::Config(_))),
            "{text}"
        );
    }
}
