//! What a result means, and which command comes next: the last lines below a result for people.

use crate::prune::ComparisonReport;
use crate::recover::RecoveryReport;
use crate::report::{HTML_NAME, Report};
use std::path::Path;

/// After `prune` and `merge`.
pub(super) fn pruned(report: &Report, is_part: bool) -> String {
    let output = &report.output;
    if is_part {
        return format!(
            "This is one part. When all parts are finished:  fista-pruner merge --parts {} --output {}",
            word(output),
            word(&format!("{output}-merged"))
        );
    }
    let mut text = "The numbers of a layer tell how much of its output changed: 0 is nothing, 1 is everything. Compare them between runs \
                    of one model.\n"
        .to_owned();
    text += match report.evaluation {
        Some(_) => "Perplexity: lower is better. Small models lose more than large ones.\n",
        None => "They do not tell how well the model still writes. Perplexity does.\n",
    };
    text += "Zeros alone make a model neither smaller nor faster: `pack` makes it smaller, a runtime for sparse weights makes it faster.\n";
    let data = match &report.evaluation {
        Some(evaluation) if evaluation.data.sources == ["demo/evaluation.txt"] => "",
        _ => " --data wikitext2",
    };
    text + &format!(
        "Next:  fista-pruner eval --model {0}{data}\n       fista-pruner pack --model {0} --output {1}\n       open {2} in a browser",
        word(output),
        word(&format!("{output}-packed")),
        Path::new(output).join(HTML_NAME).display(),
    )
}

/// After `shrink`, and `merge` of its parts.
pub(super) fn shrunk(report: &Report, is_part: bool) -> String {
    if is_part {
        return pruned(report, true);
    }
    let output = &report.output;
    let data = match &report.evaluation {
        Some(evaluation) if evaluation.data.sources == ["demo/evaluation.txt"] => "",
        _ => " --data wikitext2",
    };
    format!(
        "The numbers of a layer tell how much of its output changed: 0 is nothing, 1 is everything.\nThe result is an ordinary dense \
         model: every program that loads the original loads it, and runs it faster.\nNext:  fista-pruner eval --model {0}{data}\n       \
         fista-pruner recover --model {0} --method block --dense {1} --output {2}\n       open {3} in a browser",
        word(output),
        word(&report.model.path),
        word(&format!("{output}-recovered")),
        Path::new(output).join(HTML_NAME).display(),
    )
}

/// After `recover`.
pub(super) fn recovered(report: &RecoveryReport) -> String {
    let output = word(&report.output);
    match report.evaluation {
        Some(_) => format!(
            "Perplexity: lower is better. Next:  fista-pruner pack --model {output} --output {}",
            word(&format!("{}-packed", report.output))
        ),
        None => format!("A lower loss is better. Next:  fista-pruner eval --model {output} --data wikitext2"),
    }
}

/// After `compare`.
pub(super) fn compared(report: &ComparisonReport) -> String {
    let best = report.table.rows.iter().filter(|row| row.perplexity.is_some());
    let column = match best.count() {
        0 => "Lower errors are better; --eval-data TEXT adds the perplexity, which tells more.",
        _ => "Lower perplexity is better, and tells more than the errors.",
    };
    format!("{column} No model was written. Next: `fista-pruner prune` with the method that you choose.")
}

/// After `pack`.
pub(super) fn packed(output: &str) -> String {
    format!(
        "Every command of this program reads it, for example:  fista-pruner eval --model {0}\nOther programs do not. For them, undo it:  \
         fista-pruner unpack --model {0} --output {1}",
        word(output),
        word(&format!("{output}-plain"))
    )
}

/// After `eval`.
pub(super) fn measured(perplexity: bool) -> String {
    match perplexity {
        true => "Lower perplexity is better. Compare it only between runs with the same data, sequence length and tokenizer: first the \
                 dense model, then the pruned one."
            .to_owned(),
        false => "Higher accuracy is better. Measure the dense model too, with the same settings; ± is one standard error.".to_owned(),
    }
}

/// A path as a shell takes it.
fn word(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-~+=:,@%".contains(c);
    match !path.is_empty() && path.chars().all(plain) {
        true => path.to_owned(),
        false => format!("'{}'", path.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_what_a_shell_takes() {
        assert_eq!(
            [word("a/b-1"), word("my model"), word("it's")],
            ["a/b-1", "'my model'", r"'it'\''s'"]
        );
    }
}
