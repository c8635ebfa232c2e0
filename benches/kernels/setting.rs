//! What the environment says of shapes and device.

use fista_pruner_backends::DeviceSpec;
use std::fmt;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Sizes and device of a run.
pub(crate) struct Setting {
    pub(crate) device: DeviceSpec,
    /// Features of the residual stream.
    pub(crate) hidden: usize,
    /// Features between `up_proj` and `down_proj`.
    pub(crate) intermediate: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    /// Tokens of a batch.
    pub(crate) tokens: usize,
    /// Windows of the layer's text, and tokens of a window.
    pub(crate) samples: usize,
    pub(crate) seq_len: usize,
    /// Where the layer is written to instead of being timed.
    pub(crate) write: Option<PathBuf>,
    /// Inputs of the Gram matrices.
    pub(crate) widths: Vec<usize>,
}

/// An operator's shape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) outputs: usize,
    pub(crate) inputs: usize,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}x{}", self.name, self.outputs, self.inputs)
    }
}

impl Setting {
    /// One operator of each shape that matters.
    pub(crate) fn operators(&self) -> Vec<Shape> {
        let shape = |name, outputs, inputs| Shape {
            name,
            outputs,
            inputs,
        };
        vec![
            shape("o_proj", self.hidden, self.hidden),
            shape("up_proj", self.intermediate, self.hidden),
            shape("down_proj", self.hidden, self.intermediate),
        ]
    }

    /// Operators of one number of inputs, the hidden size times two, with few outputs and with many.
    pub(crate) fn ratios(&self) -> Vec<Shape> {
        let inputs = 2 * self.hidden;
        [(1, 8), (1, 4), (1, 2), (1, 1), (2, 1), (4, 1)]
            .map(|(over, under)| Shape {
                name: "",
                outputs: inputs * over / under,
                inputs,
            })
            .to_vec()
    }
}

/// The one setting of this process.
pub(crate) fn setting() -> &'static Setting {
    static SETTING: OnceLock<Setting> = OnceLock::new();
    SETTING.get_or_init(|| {
        let scale = number("SCALE", 8);
        assert!(
            [1, 2, 4, 8].contains(&scale),
            "FISTA_PRUNER_BENCH_SCALE must be 1, 2, 4 or 8"
        );
        let device = text("DEVICE").unwrap_or_else(|| "flex".into());
        let widths = text("WIDTHS").unwrap_or_else(|| "768,2048".into());
        let hidden = number("HIDDEN", 4096 / scale);
        assert!(
            hidden.is_multiple_of(256),
            "FISTA_PRUNER_BENCH_HIDDEN must be a multiple of 256"
        );
        let (tokens, seq_len) = (number("TOKENS", 4096), number("SEQ_LEN", 1024));
        Setting {
            samples: number("SAMPLES", (4 * tokens).div_ceil(seq_len)),
            seq_len,
            write: text("WRITE").map(PathBuf::from),
            device: device
                .parse()
                .unwrap_or_else(|e| panic!("FISTA_PRUNER_BENCH_DEVICE: {e}")),
            hidden,
            intermediate: hidden / 2 * 7,
            heads: hidden / 128,
            kv_heads: (hidden / 512).max(1),
            tokens,
            widths: widths.split(',').map(|n| parse("WIDTHS", n.trim())).collect(),
        }
    })
}

fn text(name: &str) -> Option<String> {
    std::env::var(format!("FISTA_PRUNER_BENCH_{name}")).ok()
}

fn number(name: &str, default: usize) -> usize {
    text(name).map_or(default, |value| parse(name, &value))
}

fn parse(name: &str, value: &str) -> usize {
    match value.parse() {
        Ok(number) if number > 0 => number,
        _ => panic!("FISTA_PRUNER_BENCH_{name}: `{value}` is not a positive number"),
    }
}
