//! From token ids to the input of the first layer. The token table stays in host memory and only the rows in use go to
//! the device: LLaMA 3's table alone would take 4 GB of it in f32.

use crate::config::{ModelConfig, OptConfig};
use crate::error::ModelError;
use crate::parts::{Loader, NamedShape, apply_linear, linear_tensors};
use burn::nn::Linear;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Int, Tensor, TensorData};

/// Rows that OPT's position table has before the one of position 0 (`OPTLearnedPositionalEmbedding.offset`).
const POSITION_OFFSET: usize = 2;

const POSITIONS: &str = "embed_positions.weight";

/// The token embedding, with OPT's positions and projection.
#[derive(Clone, Debug)]
pub struct Embedding<B: Backend> {
    /// f32, `[vocab, columns]`, on the host.
    table: TensorData,
    columns: usize,
    /// OPT only.
    positions: Option<Positions<B>>,
    device: B::Device,
}

#[derive(Clone, Debug)]
struct Positions<B: Backend> {
    /// `[max_positions + 2, hidden]`.
    table: Tensor<B, 2>,
    /// `project_in`, where the token table is narrower than the residual stream.
    project_in: Option<Linear<B>>,
}

/// Names, without prefix, and shapes of what OPT adds to the token table.
pub(crate) fn position_tensors(config: &OptConfig) -> Vec<NamedShape> {
    let rows = config.max_positions + POSITION_OFFSET;
    let mut tensors = vec![(POSITIONS.to_owned(), vec![rows, config.hidden_size])];
    if config.embedding_size != config.hidden_size {
        let shape = [config.hidden_size, config.embedding_size];
        linear_tensors(&mut tensors, "project_in", shape, false);
    }
    tensors
}

impl<B: Backend> Embedding<B> {
    /// `table` is f32 `[vocab, columns]`.
    pub(crate) fn load(
        config: &ModelConfig,
        table: TensorData,
        loader: &Loader<'_, B>,
    ) -> Result<Self, ModelError> {
        let columns = table.shape[1];
        let positions = match config {
            ModelConfig::Llama(_) => None,
            ModelConfig::Opt(config) => {
                let rows = config.max_positions + POSITION_OFFSET;
                let hidden = config.hidden_size;
                Some(Positions {
                    table: loader.tensor(POSITIONS, [rows, hidden])?,
                    project_in: (columns != hidden)
                        .then(|| loader.linear("project_in", [hidden, columns], false))
                        .transpose()?,
                })
            }
        };
        Ok(Self {
            table,
            columns,
            positions,
            device: loader.device.clone(),
        })
    }

    /// Hidden states `[batch, tokens, hidden]` of token ids `[batch, tokens]` whose first column is at position
    /// `first_position`.
    ///
    /// # Panics
    /// When an id is not below the vocabulary's size, or a position not below OPT's `max_positions`. Neither can be
    /// answered, and on a GPU neither would be noticed.
    pub fn forward(&self, ids: Tensor<B, 2, Int>, first_position: usize) -> Tensor<B, 3> {
        let [batch, tokens] = ids.dims();
        let rows = self.rows(&ids.into_data());
        let data = TensorData::new(rows, [batch, tokens, self.columns]);
        let hidden = Tensor::<B, 3>::from_data(data, (&self.device, DType::F32));
        match &self.positions {
            None => hidden,
            Some(positions) => {
                let hidden = match &positions.project_in {
                    Some(project_in) => apply_linear(project_in, hidden),
                    None => hidden,
                };
                hidden + positions.rows(first_position, tokens)
            }
        }
    }

    /// The table's rows of all ids, one after the other.
    fn rows(&self, ids: &TensorData) -> Vec<f32> {
        let table: &[f32] = self.table.as_slice().expect("a tensor source gives f32 values");
        let vocab = self.table.shape[0];
        let mut rows = Vec::with_capacity(ids.num_elements() * self.columns);
        for id in ids.iter::<i64>() {
            let row = usize::try_from(id)
                .ok()
                .filter(|row| *row < vocab)
                .unwrap_or_else(|| panic!("token id {id} is outside of the vocabulary of {vocab}"));
            rows.extend_from_slice(&table[row * self.columns..][..self.columns]);
        }
        rows
    }
}

impl<B: Backend> Positions<B> {
    /// `[1, tokens, hidden]`.
    fn rows(&self, first: usize, tokens: usize) -> Tensor<B, 3> {
        let start = first + POSITION_OFFSET;
        let end = start + tokens;
        let rows = self.table.dims()[0];
        assert!(
            end <= rows,
            "position {} is beyond the {} positions of the model",
            first + tokens - 1,
            rows - POSITION_OFFSET
        );
        self.table.clone().slice_dim(0, start..end).unsqueeze_dim(0)
    }
}
