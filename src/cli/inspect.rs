//! `inspect`: zeros and patterns of every linear operator of the decoder layers, read from the files alone.

use super::args::{Global, ModelArgs};
use super::{inputs, show};
use crate::artifact::inspect::{Inspection, inspect};
use crate::error::Result;
use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    model: ModelArgs,
}

pub(crate) fn run(args: &InspectArgs, global: &Global) -> Result<()> {
    let inspection = inspect(&inputs::model(&args.model, global)?)?;
    show::result(global.format, &inspection, text)
}

fn text(inspection: &Inspection) -> String {
    let rows: Vec<Vec<String>> = inspection
        .operators
        .iter()
        .map(|operator| {
            vec![
                operator.name.clone(),
                format!("{}x{}", operator.shape[0], operator.shape[1]),
                operator.zeros.to_string(),
                format!("{:.4}", operator.sparsity),
                operator.n_of_m.clone().unwrap_or_else(|| "-".into()),
            ]
        })
        .collect();
    show::table(&["linear layer", "shape", "zeros", "sparsity", "n:m"], &rows)
        + &format!(
            "\nsparsity {:.4} over {} linear layers",
            inspection.sparsity,
            inspection.operators.len()
        )
}
