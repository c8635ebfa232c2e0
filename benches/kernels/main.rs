//! What a pruning run consists of, each part timed beside the plain f32 matrix product of the same device and run.
//!
//! ```text
//! cargo bench                          all; the table at the end gives each part's share of the product's rate
//! cargo bench -- gram_update           only those whose name matches
//! ```
//!
//! | variable | |
//! |---|---|
//! | `FISTA_PRUNER_BENCH_DEVICE` | a device as `--device` takes it; `flex` by default |
//! | `FISTA_PRUNER_BENCH_SCALE` | what the sizes of LLaMA-3-8B, 4096 and 14336, are divided by: 8 by default, 1 for all of it |
//! | `FISTA_PRUNER_BENCH_HIDDEN` | instead of that, the hidden size, a multiple of 256; the MLP is 3.5 times as wide |
//! | `FISTA_PRUNER_BENCH_TOKENS` | tokens of a batch, 4096 by default |
//! | `FISTA_PRUNER_BENCH_WRITE` | instead of timing anything: a folder for the layer's checkpoint, and token ids to prune it with |
//! | `FISTA_PRUNER_BENCH_SAMPLES`, `FISTA_PRUNER_BENCH_SEQ_LEN` | how many windows of how many tokens; by default four batches of 1024 |
//! | `FISTA_PRUNER_BENCH_WIDTHS` | inputs `n` of the Gram matrices, separated by commas: 768,2048 by default |

#![allow(clippy::unwrap_used, reason = "a benchmark may stop at the first surprise")]

mod layer;
mod matrices;
mod measure;
mod setting;

use divan::Bencher;
use matrices::{FistaIterations, Gram, Operator, Pair, Polish, Preset, Product, SplittingSteps};
use setting::{Shape, setting};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As the program does, or pages would be given back and faulted in between two steps.
fn keep_freed_memory() {
    /// `mi_option_purge_delay` of mimalloc.h, in milliseconds.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    #[expect(unsafe_code, reason = "an option of the allocator is a call into C")]
    // SAFETY: sets a number in a table of the allocator; no other thread runs yet.
    unsafe {
        libmimalloc_sys::mi_option_set_default(PURGE_DELAY, -1);
    }
}

fn main() {
    keep_freed_memory();
    if let Some(folder) = &setting().write {
        layer::DecoderLayer::new().write(folder);
        return;
    }
    divan::Divan::default()
        .sample_count(50)
        .sample_size(1)
        .max_time(std::time::Duration::from_secs(4))
        .config_with_args()
        .main();
    measure::print_table();
}

#[divan::bench(args = setting().operators())]
fn product_f32(bencher: Bencher<'_, '_>, shape: Shape) {
    measure::run(bencher, "product in f32", Product { shape, fast: false });
}

#[divan::bench(args = setting().operators())]
fn product_fast(bencher: Bencher<'_, '_>, shape: Shape) {
    measure::run(bencher, "product, the fast way", Product { shape, fast: true });
}

/// A batch added to a Gram matrix.
#[divan::bench(args = setting().widths.clone())]
fn gram_update(bencher: Bencher<'_, '_>, inputs: usize) {
    measure::run(bencher, "Gram update", Gram { inputs });
}

/// A batch added to what error correction needs of one operator: `G`, the drift and its energy.
#[divan::bench(args = setting().operators())]
fn drift_update(bencher: Bencher<'_, '_>, shape: Shape) {
    measure::run(bencher, "Gram and drift update", Pair { shape });
}

#[divan::bench(args = setting().operators())]
fn fista_iteration(bencher: Bencher<'_, '_>, shape: Shape) {
    measure::run(bencher, "FISTA iteration", FistaIterations { shape });
}

#[divan::bench(args = setting().operators())]
fn polish(bencher: Bencher<'_, '_>, shape: Shape) {
    measure::run(bencher, "polish", Polish { shape });
}

#[divan::bench(args = setting().operators())]
fn l0_step(bencher: Bencher<'_, '_>, shape: Shape) {
    measure::run(bencher, "l0 step", SplittingSteps { shape });
}

#[divan::bench(args = setting().operators())]
fn operator_fast(bencher: Bencher<'_, '_>, shape: Shape) {
    let preset = Preset::Fast;
    measure::run(bencher, "operator, fast", Operator { shape, preset });
}

#[divan::bench(args = setting().operators())]
fn operator_best(bencher: Bencher<'_, '_>, shape: Shape) {
    let preset = Preset::Best;
    measure::run(bencher, "operator, best", Operator { shape, preset });
}

/// `fast` beside SparseGPT, from an eighth as many outputs as inputs to four times as many: the times compare, not the shares.
#[divan::bench(args = setting().ratios())]
fn ratio_fast(bencher: Bencher<'_, '_>, shape: Shape) {
    let preset = Preset::Fast;
    measure::run(bencher, "any ratio, fast", Operator { shape, preset });
}

#[divan::bench(args = setting().ratios())]
fn ratio_sparsegpt(bencher: Bencher<'_, '_>, shape: Shape) {
    let preset = Preset::SparseGpt;
    measure::run(bencher, "any ratio, SparseGPT", Operator { shape, preset });
}

/// Statistics, error correction and solver of a decoder layer, from a checkpoint on disk.
#[divan::bench]
fn layer_fast(bencher: Bencher<'_, '_>) {
    measure::run(bencher, "decoder layer, fast", layer::DecoderLayer::new());
}
