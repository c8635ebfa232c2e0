//! A JSON object a line, for programs. `docs/progress.md` describes the events; a test compares it with what is written.

use super::state::State;
use crate::progress::Event;
use crate::system::Memory;
use serde::Serialize;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// Version of the layout; a change that breaks readers raises it. New events and new fields do not.
const VERSION: u32 = 1;

/// One line. Fields that an event has not got are left out.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Line<'a> {
    pub(super) version: u32,
    pub(super) event: &'static str,
    /// Unix time in seconds.
    pub(super) time: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) program: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) command: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stage: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) step: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) steps: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) layer: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) layers: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) on: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) operator: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) branch: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) relative_error: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mean_relative_error: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sparsity: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) level: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) signal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) elapsed_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) eta_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rss_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) peak_rss_bytes: Option<u64>,
}

impl Line<'_> {
    /// A line of an event, now, with nothing more.
    pub(super) fn new(event: &'static str) -> Self {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            version: VERSION,
            event,
            time: rounded(time.as_secs_f64()),
            ..Self::default()
        }
    }
}

/// Writes a line; nobody can be told that stderr cannot be written.
pub(super) fn write(line: &Line<'_>) {
    if let Ok(mut text) = serde_json::to_vec(line) {
        text.push(b'\n');
        // In one piece: other threads write lines too.
        let _ = std::io::stderr().lock().write_all(&text);
    }
}

pub(super) fn show(event: Event<'_>, state: &State, branches: &[String]) {
    let named = |branch: usize| branches.get(branch).map(String::as_str);
    let mut line = Line {
        stage: Some(state.stage),
        ..Line::new(match event {
            Event::Stage { .. } => "stage",
            Event::Working { .. } => "working",
            Event::Layer { .. } => "layer",
            Event::Solving { .. } => "solving",
            Event::Operator { .. } => "operator",
            Event::Step => "step",
            Event::Done => "done",
        })
    };
    match event {
        Event::Stage { steps, .. } => line.steps = Some(steps),
        Event::Working { on } => line.on = Some(on),
        Event::Layer { layer, layers, .. } => (line.layer, line.layers) = (Some(layer), Some(layers)),
        Event::Solving { name, layer, branch } => {
            (line.operator, line.layer, line.branch) = (Some(name), Some(layer), named(branch));
        }
        Event::Operator {
            name,
            layer,
            branch,
            relative_error,
            sparsity,
            seconds,
        } => {
            (line.operator, line.layer, line.branch) = (Some(name), Some(layer), named(branch));
            (line.relative_error, line.sparsity) = (Some(relative_error), Some(sparsity));
            line.mean_relative_error = state.mean(branch);
            line.seconds = Some(rounded(seconds));
            add_place(&mut line, state);
        }
        Event::Step => {
            line.seconds = Some(rounded(state.step_seconds));
            add_place(&mut line, state);
        }
        Event::Done => line.seconds = Some(rounded(state.elapsed())),
    }
    write(&line);
}

/// How far the stage is, and what it takes.
fn add_place(line: &mut Line<'_>, state: &State) {
    (line.step, line.steps) = (Some(state.step), Some(state.steps));
    line.elapsed_seconds = Some(rounded(state.elapsed()));
    line.eta_seconds = state.left().map(rounded);
    if let Some(memory) = Memory::now() {
        (line.rss_bytes, line.peak_rss_bytes) = (Some(memory.resident), Some(memory.peak));
    }
}

/// Whole milliseconds.
pub(super) fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}
