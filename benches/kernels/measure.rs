//! Times a piece of work on the chosen device, and the plain product beside it.

use crate::setting::setting;
use burn::tensor::{Tensor, TensorData};
use divan::Bencher;
use divan::counter::ItemsCount;
use fista_pruner_backends::{DeviceJob, SolverOps, dispatch};
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A piece of work, written once for all devices.
pub(crate) trait Work {
    /// Its shape, for the table.
    fn shape(&self) -> String;

    /// `[m, k, n]` of the plain product whose rate is the measure: one of those that the work consists of.
    fn product(&self) -> [usize; 3];

    /// Additions and multiplications that cannot be avoided.
    fn operations(&self) -> f64;

    /// Prepares what is not timed and gives what is.
    fn prepare<B: SolverOps>(&self, device: &B::Device) -> Box<dyn FnMut()>;
}

struct Row {
    name: &'static str,
    shape: String,
    seconds: f64,
    operations: f64,
    /// Operations a second of the plain product.
    product_rate: f64,
}

static ROWS: Mutex<Vec<Row>> = Mutex::new(Vec::new());
static PRODUCT_RATES: Mutex<BTreeMap<[usize; 3], f64>> = Mutex::new(BTreeMap::new());

/// Benchmarks `work` on the device that the environment names.
pub(crate) fn run<W: Work>(bencher: Bencher<'_, '_>, name: &'static str, work: W) {
    let job = Job { bencher, name, work };
    dispatch(&setting().device, job).unwrap_or_else(|e| panic!("{e}"));
}

struct Job<'a, 'b, W> {
    bencher: Bencher<'a, 'b>,
    name: &'static str,
    work: W,
}

impl<W: Work> DeviceJob for Job<'_, '_, W> {
    type Output = ();

    fn run<B: SolverOps>(self, device: &B::Device) {
        let operations = self.work.operations();
        let product_rate = product_rate::<B>(self.work.product(), device);
        let mut step = self.work.prepare::<B>(device);
        // Memory is touched for the first time, and kernels are compiled.
        timed::<B>(device, &mut *step);
        let mut seconds = f64::INFINITY;
        self.bencher
            .counter(ItemsCount::new(operations as u64))
            .bench_local(|| seconds = seconds.min(timed::<B>(device, &mut *step)));
        ROWS.lock().unwrap().push(Row {
            name: self.name,
            shape: self.work.shape(),
            seconds,
            operations,
            product_rate,
        });
    }
}

/// Seconds until the device is done.
fn timed<B: SolverOps>(device: &B::Device, work: &mut dyn FnMut()) -> f64 {
    let started = Instant::now();
    work();
    B::sync(device).unwrap_or_else(|e| panic!("{e:?}"));
    started.elapsed().as_secs_f64()
}

/// Operations a second of `[m, k] · [k, n]` in f32, the fastest of several.
fn product_rate<B: SolverOps>(shape: [usize; 3], device: &B::Device) -> f64 {
    let mut rates = PRODUCT_RATES.lock().unwrap();
    *rates.entry(shape).or_insert_with(|| {
        let [m, k, n] = shape;
        let (a, b) = (random::<B>(m, k, 1, device), random::<B>(k, n, 2, device));
        let mut product = || drop(B::matmul_f32(a.clone(), b.clone()));
        let mut seconds = timed::<B>(device, &mut product);
        let started = Instant::now();
        for repeat in 0..50 {
            if repeat >= 3 && started.elapsed() > Duration::from_secs(1) {
                break;
            }
            seconds = seconds.min(timed::<B>(device, &mut product));
        }
        2.0 * (m * k * n) as f64 / seconds
    })
}

/// Entries between −1 and 1, the same in every run.
pub(crate) fn random<B: SolverOps>(
    rows: usize,
    columns: usize,
    seed: u64,
    device: &B::Device,
) -> Tensor<B, 2> {
    let mut draw = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..rows * columns)
        .map(|_| draw.random_range(-1.0..1.0))
        .collect();
    Tensor::from_data(TensorData::new(values, [rows, columns]), device)
}

/// The fastest time of each benchmark as a share of the plain product's rate.
#[allow(clippy::print_stdout, reason = "the result of a benchmark")]
pub(crate) fn print_table() {
    let rows = ROWS.lock().unwrap();
    if rows.is_empty() {
        return;
    }
    println!(
        "\n{:<24}{:<34}{:>12}{:>10}{:>12}{:>10}",
        "on one device, fastest", "shape", "ms", "GFLOP/s", "product's", "share"
    );
    for row in rows.iter() {
        let rate = row.operations / row.seconds;
        println!(
            "{:<24}{:<34}{:>12.2}{:>10.1}{:>12.1}{:>9.0}%",
            row.name,
            row.shape,
            row.seconds * 1e3,
            rate / 1e9,
            row.product_rate / 1e9,
            100.0 * rate / row.product_rate
        );
    }
}
