//! Structured pruning of a burn program's own MLP: hidden units are removed, and the layers around them get smaller.

use crate::config::{ColumnConfig, Criterion, Pattern, Ridge};
use crate::error::{ConfigError, Error, Result};
use crate::prune::Accumulator;
use crate::solver::{Means, columns, download};
use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{Int, Tensor, TensorData};
use fista_pruner_backends::SolverOps;

/// An MLP with fewer hidden units.
#[derive(Debug)]
pub struct SmallerHidden<B: SolverOps> {
    /// The layers that make the units, in the order in which they were given: `[inputs, kept]` in burn's layout.
    pub before: Vec<Linear<B>>,
    /// The layer that takes them: `[kept, outputs]` in burn's layout.
    pub after: Linear<B>,
    /// The units that are left, in order.
    pub kept: Vec<usize>,
    /// `‖V H − W H‖² / ‖W H‖²` of the outputs, on the hidden states given.
    pub relative_error: f64,
}

/// Removes hidden units from an MLP, by backward elimination, and fits `after` again to what it gave: its bias too, where it has one.
///
/// `before` are all the layers whose outputs make the units (one, or gate and up), `after` is the one that takes them. `hidden` are
/// inputs of `after` from calibration data, `[tokens, units]` each. `kept` units stay. Norms or parameters that belong to single units
/// are the caller's to cut: [`SmallerHidden::kept`] says how.
///
/// # Errors
/// When the shapes do not fit, there are no tokens, a value is not finite, or the device fails.
///
/// ```
/// use burn::backend::Flex;
/// use burn::nn::LinearConfig;
/// use burn::tensor::{Distribution, Tensor, activation::relu};
/// use fista_pruner::module::remove_hidden;
///
/// let device = Default::default();
/// let up = LinearConfig::new(8, 32).init::<Flex>(&device);
/// let down = LinearConfig::new(32, 4).init::<Flex>(&device);
/// let data = Tensor::<Flex, 2>::random([256, 8], Distribution::Default, &device);
///
/// let hidden = relu(up.forward(data.clone()));
/// let wanted = down.forward(hidden.clone());
/// let smaller = remove_hidden(vec![up], down, &[hidden], 20)?;
///
/// assert_eq!(smaller.before[0].weight.dims(), [8, 20]);
/// assert_eq!(smaller.after.weight.dims(), [20, 4]);
/// let found = smaller.after.forward(relu(smaller.before[0].forward(data)));
/// assert_eq!(found.dims(), wanted.dims());
/// println!("{} % of the output's energy is lost", 100.0 * smaller.relative_error);
/// # Ok::<(), fista_pruner::error::Error>(())
/// ```
pub fn remove_hidden<B: SolverOps>(
    before: Vec<Linear<B>>,
    after: Linear<B>,
    hidden: &[Tensor<B, 2>],
    kept: usize,
) -> Result<SmallerHidden<B>> {
    let wrong = |reason: String| {
        Error::from(ConfigError::Setting {
            setting: "‹hidden›",
            reason,
        })
    };
    let [units, outputs] = after.weight.dims();
    if kept == 0 || kept > units {
        return Err(wrong(format!("{kept} of {units} units cannot stay")));
    }
    if let Some(layer) = before.iter().find(|layer| layer.weight.dims()[1] != units) {
        let found = layer.weight.dims()[1];
        return Err(wrong(format!(
            "a layer makes {found} units, and the next one takes {units}"
        )));
    }
    if let Some(batch) = hidden.iter().find(|batch| batch.dims()[1] != units) {
        return Err(wrong(format!(
            "there are states of {} units, and not of {units}",
            batch.dims()[1]
        )));
    }
    let name = "the layer after the hidden units";
    let mut accumulator = Accumulator::with_means();
    hidden.iter().for_each(|batch| accumulator.add(batch.clone()));
    let statistics = accumulator.finish(name)?;
    let mut problem = statistics.problem(name, after.weight.val().transpose());
    problem.tokens = Some(statistics.tokens);
    problem.means = statistics.mean.map(download).transpose()?.map(|input| Means {
        input,
        drift: vec![0.0; outputs],
    });
    if after.bias.is_some() {
        problem = problem.centred(true);
    }
    let config = ColumnConfig {
        criterion: Criterion::Obs,
        refit: true,
        fit_first: false,
    };
    let pattern = Pattern::Columns { kept, of: units };
    let solution = columns::prune(&problem, pattern, &config, Ridge::Auto)?;
    let squared_error = problem.squared_error(problem.upload(solution.values.clone()));
    let left: Vec<usize> = (0..units).filter(|unit| solution.keep[*unit]).collect();
    let device = after.weight.val().device();
    let data: Vec<i64> = left.iter().map(|unit| *unit as i64).collect();
    let index = Tensor::<B, 1, Int>::from_data(TensorData::new(data, [kept]), &device);
    let weight = problem
        .upload(solution.values)
        .select(1, index.clone())
        .transpose();
    let bias = after.bias.map(|bias| match solution.bias {
        Some(change) => {
            let change = Tensor::from_data(TensorData::new(change, [outputs]), &device);
            Param::from_tensor(bias.val() + change)
        }
        None => bias,
    });
    let cut = |layer: Linear<B>| Linear {
        weight: Param::from_tensor(layer.weight.val().select(1, index.clone())),
        bias: layer
            .bias
            .map(|bias| Param::from_tensor(bias.val().select(0, index.clone()))),
    };
    Ok(SmallerHidden {
        before: before.into_iter().map(cut).collect(),
        after: Linear {
            weight: Param::from_tensor(weight),
            bias,
        },
        kept: left,
        relative_error: problem.relative(squared_error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;
    use burn::nn::LinearConfig;
    use burn::tensor::Distribution;
    use burn::tensor::activation::relu;

    /// Of 24 units every second one is a copy of the one before: half of them say everything.
    #[test]
    fn copies_go_without_a_loss() {
        let device = Default::default();
        let mut up = LinearConfig::new(6, 24).init::<Flex>(&device);
        let down = LinearConfig::new(24, 5).init::<Flex>(&device);
        let evens: Vec<i64> = (0..24).map(|i| i / 2 * 2).collect();
        let index = Tensor::<Flex, 1, Int>::from_data(TensorData::new(evens, [24]), &device);
        up.weight = Param::from_tensor(up.weight.val().select(1, index.clone()));
        up.bias = up
            .bias
            .map(|bias| Param::from_tensor(bias.val().select(0, index)));
        let data = Tensor::<Flex, 2>::random([4000, 6], Distribution::Default, &device);
        let hidden = relu(up.forward(data.clone()));
        let wanted = down.forward(hidden.clone());
        let smaller = remove_hidden(vec![up], down, &[hidden], 12).unwrap();
        let mut pairs: Vec<usize> = smaller.kept.iter().map(|unit| unit / 2).collect();
        pairs.dedup();
        let found = smaller.after.forward(relu(smaller.before[0].forward(data)));
        let lost =
            (found - wanted.clone()).square().sum().into_scalar() / wanted.square().sum().into_scalar();
        assert!(
            smaller.relative_error < 1e-2 && lost < 1e-2,
            "{} {lost}",
            smaller.relative_error
        );
    }

    #[test]
    fn shapes_that_do_not_fit_are_said() {
        let device = Default::default();
        let layer = |from, to| LinearConfig::new(from, to).init::<Flex>(&device);
        let states = || [Tensor::<Flex, 2>::zeros([4, 8], &device)];
        let message = |result: Result<SmallerHidden<Flex>>| result.unwrap_err().to_string();
        assert!(
            message(remove_hidden(vec![layer(3, 7)], layer(8, 2), &states(), 4)).contains("makes 7 units")
        );
        assert!(message(remove_hidden(vec![layer(3, 8)], layer(8, 2), &states(), 9)).contains("9 of 8"));
        assert!(
            message(remove_hidden(vec![layer(3, 9)], layer(9, 2), &states(), 4))
                .contains("states of 8 units")
        );
    }
}
