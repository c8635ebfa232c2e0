//! What burn's optimizers remember of a weight that is removed: nothing.

use burn::optim::momentum::MomentumState;
use burn::optim::{Adam, AdamState, AdamW, AdamWState, Adan, AdanState, Sgd, SgdState};
use burn::optim::{AdaptiveMomentumState, SimpleOptimizer};
use burn::record::{DoublePrecisionSettings, Record};
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor};

/// An optimizer whose running averages can be cleared where weights are removed.
///
/// From then on they stay zero, because [`MaskedOptimizer`](super::MaskedOptimizer) gives zero gradients there.
pub trait Moments<B: Backend>: SimpleOptimizer<B> {
    /// The state of `weight [in, out]` with zeros where `removed [in, out]` is true.
    fn clear(state: Self::State<2>, removed: &Tensor<B, 2, Bool>, weight: &Tensor<B, 2>) -> Self::State<2>;
}

fn zeroed<B: Backend>(tensor: Tensor<B, 2>, removed: &Tensor<B, 2, Bool>) -> Tensor<B, 2> {
    let removed = removed.clone().to_device(&tensor.device());
    tensor.mask_fill(removed, 0.0)
}

fn adaptive<B: Backend>(
    state: AdaptiveMomentumState<B, 2>,
    removed: &Tensor<B, 2, Bool>,
) -> AdaptiveMomentumState<B, 2> {
    AdaptiveMomentumState {
        time: state.time,
        moment_1: zeroed(state.moment_1, removed),
        moment_2: zeroed(state.moment_2, removed),
        max_moment_2: state.max_moment_2.map(|moment| zeroed(moment, removed)),
    }
}

impl<B: Backend> Moments<B> for Adam {
    fn clear(
        state: AdamState<B, 2>,
        removed: &Tensor<B, 2, Bool>,
        _weight: &Tensor<B, 2>,
    ) -> AdamState<B, 2> {
        AdamState::new(adaptive(state.momentum, removed))
    }
}

impl<B: Backend> Moments<B> for AdamW {
    fn clear(
        state: AdamWState<B, 2>,
        removed: &Tensor<B, 2, Bool>,
        _weight: &Tensor<B, 2>,
    ) -> AdamWState<B, 2> {
        AdamWState::new(adaptive(state.momentum, removed))
    }
}

impl<B: Backend> Moments<B> for Adan {
    fn clear(
        mut state: AdanState<B, 2>,
        removed: &Tensor<B, 2, Bool>,
        _weight: &Tensor<B, 2>,
    ) -> AdanState<B, 2> {
        let momentum = &mut state.momentum;
        for moment in [
            &mut momentum.exp_avg,
            &mut momentum.exp_avg_sq,
            &mut momentum.exp_avg_diff,
            &mut momentum.neg_pre_grad,
        ] {
            moment.inplace(|moment| zeroed(moment, removed));
        }
        state
    }
}

impl<B: Backend> Moments<B> for Sgd<B> {
    fn clear(state: SgdState<B, 2>, removed: &Tensor<B, 2, Bool>, weight: &Tensor<B, 2>) -> SgdState<B, 2> {
        // burn keeps the velocity to itself; its record, which loses nothing in double precision, does not.
        let velocity = |momentum: MomentumState<B, 2>| -> Tensor<B, 2> {
            let item = momentum.into_item::<DoublePrecisionSettings>();
            let device = weight.device();
            let velocity: Tensor<B, 2> = Tensor::from_item::<DoublePrecisionSettings>(item.velocity, &device);
            velocity.cast(weight.dtype())
        };
        SgdState::new(
            state
                .momentum
                .map(|momentum| MomentumState::new(zeroed(velocity(momentum), removed))),
        )
    }
}
