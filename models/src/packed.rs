//! Token sequences that begin alike, evaluated without computing a shared beginning twice and without padding: the
//! choices of a question, with their common context. Norms, products and activations work on packed rows, one for each
//! token that is not shared; only attention, a small part of the work, sees whole sequences.

use crate::parts::{KvCache, on_host};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};

/// Where the packed rows of some sequences belong.
///
/// A causal decoder computes the same for a token whatever follows it, so that sequences which begin alike share the rows
/// of their beginning, and sequences of different lengths can be filled up at their end with any row at all.
#[derive(Clone, Debug)]
pub struct Pack<B: Backend> {
    sequences: usize,
    /// Tokens of the longest sequence.
    longest: usize,
    rows: usize,
    /// The row at each place of each sequence, shape `[sequences · longest]`.
    spread: Tensor<B, 1, Int>,
    /// One place of each row, shape `[rows]`.
    gather: Tensor<B, 1, Int>,
}

impl<B: Backend> Pack<B> {
    /// `row_of[s][t]` is the row of token `t` of sequence `s`; every row from 0 to the largest belongs to some token.
    /// A row may belong to several sequences, at the same `t` and behind the same rows.
    ///
    /// # Panics
    /// When there is no sequence, an empty one, or a row without a token.
    pub fn new(row_of: &[Vec<usize>], device: &B::Device) -> Self {
        let sequences = row_of.len();
        let longest = row_of.iter().map(Vec::len).max().unwrap_or(0);
        let rows = 1 + row_of.iter().flatten().max().expect("a pack has a token");
        let mut spread = Vec::with_capacity(sequences * longest);
        let mut places = vec![None; rows];
        for (sequence, of_sequence) in row_of.iter().enumerate() {
            let first = *of_sequence.first().expect("a sequence has a token");
            for (token, row) in of_sequence.iter().enumerate() {
                places[*row].get_or_insert(sequence * longest + token);
                spread.push(*row as i64);
            }
            spread.resize((sequence + 1) * longest, first as i64);
        }
        let gather: Vec<i64> = places
            .into_iter()
            .map(|place| place.expect("every row has a token") as i64)
            .collect();
        let indices = |values: Vec<i64>| {
            let count = values.len();
            Tensor::from_data(TensorData::new(values, [count]), device)
        };
        Self {
            sequences,
            longest,
            rows,
            spread: indices(spread),
            gather: indices(gather),
        }
    }

    /// Rows of a pack that suit the device: on a host backend every core works on a pack of its own, whose activations
    /// should stay in its cache; elsewhere large products pay.
    pub fn preferred_rows(device: &B::Device) -> usize {
        if on_host::<B>(device) { 512 } else { 8192 }
    }

    /// Number of packed rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Packed rows `[1, rows, features]` to whole sequences `[sequences, longest, features]`.
    pub fn spread(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let features = x.dims()[2];
        x.reshape([self.rows, features])
            .select(0, self.spread.clone())
            .reshape([self.sequences, self.longest, features])
    }

    /// Whole sequences `[sequences, longest, features]` to packed rows `[1, rows, features]`.
    pub fn gather(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let features = x.dims()[2];
        x.reshape([self.sequences * self.longest, features])
            .select(0, self.gather.clone())
            .reshape([1, self.rows, features])
    }
}

/// What the tokens that a layer is given are.
pub(crate) enum Tokens<'a, B: Backend> {
    /// Sequences of one length from their start.
    Whole,
    /// What follows the tokens in the cache.
    Continued(&'a mut KvCache<B>),
    /// Packed rows.
    Packed(&'a Pack<B>),
}

impl<B: Backend> Tokens<'_, B> {
    /// The sequences that attention works on.
    pub(crate) fn spread(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        match self {
            Self::Packed(pack) => pack.spread(x),
            _ => x,
        }
    }

    /// Undoes [`Self::spread`].
    pub(crate) fn gather(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        match self {
            Self::Packed(pack) => pack.gather(x),
            _ => x,
        }
    }

    /// Whether the tokens see nothing but each other.
    pub(crate) fn starts_sequences(&self) -> bool {
        !matches!(self, Self::Continued(_))
    }

    /// Position of the first token.
    pub(crate) fn first_position(&self) -> usize {
        match self {
            Self::Continued(cache) => cache.tokens(),
            _ => 0,
        }
    }

    /// All keys and values that the tokens may see, from their own `[batch, kv_heads, tokens, head_dim]`.
    pub(crate) fn seen(
        &mut self,
        keys: Tensor<B, 4>,
        values: Tensor<B, 4>,
        window: Option<usize>,
    ) -> (Tensor<B, 4>, Tensor<B, 4>) {
        match self {
            Self::Continued(cache) => cache.append(keys, values, window),
            _ => (keys, values),
        }
    }
}
