//! A module's tree of parameters: finds its `Linear` layers and everything else, and replaces weights, by path.

use super::error::ModuleError;
use super::paths::PathFilter;
use super::report::LeftAlone;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, DType, Int, Tensor, TensorPrimitive};
use std::collections::BTreeMap;

/// What burn's derive calls the fields of its own `Linear`.
const LINEAR: &str = "Struct:Linear";

/// Where in the tree a visitor is: names, and the types that own them.
#[derive(Debug, Default)]
pub(crate) struct Position(Vec<(String, String)>);

impl Position {
    pub(crate) fn enter(&mut self, name: &str, owner: &str) {
        self.0.push((name.to_owned(), owner.to_owned()));
    }

    pub(crate) fn exit(&mut self) {
        self.0.pop();
    }

    /// The path of the module that owns the current parameter.
    fn owner(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|(name, _)| name.as_str()).collect();
        names
            .split_last()
            .map_or(String::new(), |(_, owner)| owner.join("."))
    }

    fn owner_kind(&self) -> &str {
        self.0.last().map_or("", |(_, owner)| owner)
    }

    /// The path of the `Linear` whose weight the current parameter of rank `D` is.
    pub(crate) fn linear<const D: usize>(&self) -> Option<String> {
        let (name, owner) = self.0.last()?;
        (D == 2 && owner == LINEAR && name == "weight").then(|| self.owner())
    }
}

/// A `Linear` of a module.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) path: String,
    /// The weight's.
    pub(crate) id: ParamId,
    /// `[out, in]`; burn's weight is `[in, out]`.
    pub(crate) shape: [usize; 2],
    pub(crate) dtype: DType,
    /// Weights and biases.
    pub(crate) parameters: usize,
}

/// All parameters of a module.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    position: Position,
    pub(crate) linears: Vec<Layer>,
    pub(crate) others: Vec<LeftAlone>,
}

impl Survey {
    /// Looks at a module, and makes those of its parameters that burn has not drawn yet: copies would draw their own.
    pub(crate) fn of<B: Backend, M: Module<B>>(module: &M) -> Self {
        let mut survey = Self::default();
        module.visit(&mut survey);
        survey
    }

    /// The chosen layers.
    pub(crate) fn chosen(&self, paths: &PathFilter) -> Result<Vec<Layer>, ModuleError> {
        let all: Vec<&str> = self.linears.iter().map(|layer| layer.path.as_str()).collect();
        paths.check(&all)?;
        let chosen = self.linears.iter().filter(|layer| paths.chooses(&layer.path));
        let chosen: Vec<Layer> = chosen.cloned().collect();
        let mut by_id: BTreeMap<ParamId, &str> = BTreeMap::new();
        for layer in &chosen {
            if let DType::QFloat(_) = layer.dtype {
                return Err(ModuleError::Quantized {
                    path: layer.path.clone(),
                });
            }
            if let Some(first) = by_id.insert(layer.id, &layer.path) {
                return Err(ModuleError::SharedId {
                    first: first.to_owned(),
                    second: layer.path.clone(),
                });
            }
        }
        Ok(chosen)
    }

    fn other(&mut self, parameters: usize) {
        let path = self.position.owner();
        let kind = self.position.owner_kind();
        // A layer's bias is part of the layer.
        let layer = self.linears.last_mut();
        if let Some(layer) = layer.filter(|layer| kind == LINEAR && layer.path == path) {
            layer.parameters += parameters;
            return;
        }
        let kind = kind.split_once(':').map_or(kind, |(_, name)| name);
        match self.others.iter_mut().find(|other| other.path == path) {
            Some(other) => other.parameters += parameters,
            None => self.others.push(LeftAlone {
                path,
                kind: kind.to_owned(),
                parameters,
            }),
        }
    }
}

impl<B: Backend> ModuleVisitor<B> for Survey {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.position.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.position.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let tensor = param.val();
        match self.position.linear::<D>() {
            Some(path) => {
                let dims = tensor.dims();
                self.linears.push(Layer {
                    path,
                    id: param.id,
                    shape: [dims[1], dims[0]],
                    dtype: tensor.dtype(),
                    parameters: tensor.shape().num_elements(),
                });
            }
            None => self.other(tensor.shape().num_elements()),
        }
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<B, D, Int>>) {
        self.other(param.val().shape().num_elements());
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<B, D, Bool>>) {
        self.other(param.val().shape().num_elements());
    }
}

/// Shows `see` the weight `[in, out]` of every `Linear`, with its path and id.
pub(crate) fn each_weight<B: Backend, M: Module<B>>(
    module: &M,
    see: impl FnMut(&str, ParamId, Tensor<B, 2>),
) {
    struct Each<F> {
        position: Position,
        see: F,
    }
    impl<B: Backend, F: FnMut(&str, ParamId, Tensor<B, 2>)> ModuleVisitor<B> for Each<F> {
        fn enter_module(&mut self, name: &str, container_type: &str) {
            self.position.enter(name, container_type);
        }
        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.position.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            if let Some(path) = self.position.linear::<D>() {
                (self.see)(&path, param.id, of_rank(param.val()));
            }
        }
    }
    module.visit(&mut Each {
        position: Position::default(),
        see,
    });
}

/// The module with what `change` makes of the weight `[in, out]` of every `Linear`; nothing else is touched. A weight that
/// needs a gradient still does.
pub(crate) fn map_weights<B: Backend, M: Module<B>>(
    module: M,
    change: impl FnMut(&str, ParamId, Tensor<B, 2>) -> Option<Tensor<B, 2>>,
) -> M {
    struct Map<F> {
        position: Position,
        change: F,
    }
    impl<B: Backend, F: FnMut(&str, ParamId, Tensor<B, 2>) -> Option<Tensor<B, 2>>> ModuleMapper<B> for Map<F> {
        fn enter_module(&mut self, name: &str, container_type: &str) {
            self.position.enter(name, container_type);
        }
        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.position.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
            let Some(path) = self.position.linear::<D>() else {
                return param;
            };
            let Some(changed) = (self.change)(&path, param.id, of_rank(param.val().detach())) else {
                return param;
            };
            param.map(|old| of_rank::<B, 2, D>(changed).set_require_grad(old.is_require_grad()))
        }
        fn map_int<const D: usize>(&mut self, param: Param<Tensor<B, D, Int>>) -> Param<Tensor<B, D, Int>> {
            param
        }
        fn map_bool<const D: usize>(
            &mut self,
            param: Param<Tensor<B, D, Bool>>,
        ) -> Param<Tensor<B, D, Bool>> {
            param
        }
    }
    module.map(&mut Map {
        position: Position::default(),
        change,
    })
}

/// The same tensor, of a rank that the compiler could not know to be the same.
fn of_rank<B: Backend, const FROM: usize, const TO: usize>(tensor: Tensor<B, FROM>) -> Tensor<B, TO> {
    debug_assert_eq!(FROM, TO);
    let primitive: TensorPrimitive<B> = tensor.into_primitive();
    Tensor::from_primitive(primitive)
}

/// `[rows, columns]` row-major to `[columns, rows]` row-major.
pub(crate) fn transposed<T: Copy>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
    debug_assert_eq!(values.len(), rows * columns);
    let column = |c: usize| (0..rows).map(move |r| values[r * columns + c]);
    (0..columns).flat_map(column).collect()
}
