//! A pickle machine that knows tensors and nothing else. In: the pickled bytes of a torch state dict. Out: each tensor's
//! dtype, shape, strides and storage, for `pytorch`.
//!
//! A pickle is a program. This machine runs only the instructions that build plain data, and of all Python callables only
//! those by which torch rebuilds a tensor; it interprets these itself and calls nothing. Any other callable is an error
//! that names it. Values live in one vector and refer to each other by position, so that a hostile nesting can
//! exhaust neither the stack nor more memory than the file's own size allows.

use super::StoredDtype;
use std::collections::{BTreeMap, VecDeque};

/// Why a pickle was refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PickleError {
    /// It names a Python object other than those by which torch saves tensors.
    Object(String),
    /// It is damaged, or not what it should be.
    Damaged(String),
}

type Result<T> = std::result::Result<T, PickleError>;

fn damaged<T>(reason: impl Into<String>) -> Result<T> {
    Err(PickleError::Damaged(reason.into()))
}

/// A run of numbers that tensors share.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StorageRef {
    /// Its name in the file.
    pub(crate) key: String,
    /// The format of its elements; U8 where the file leaves it to the tensors.
    pub(crate) dtype: StoredDtype,
    /// Its number of elements.
    pub(crate) elements: u64,
}

/// A view of a storage.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TensorRef {
    pub(crate) storage: StorageRef,
    pub(crate) dtype: StoredDtype,
    /// In elements, as the strides.
    pub(crate) offset: u64,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<u64>,
}

/// Position of a value in [`Machine::values`].
type Id = usize;

#[derive(Debug, Clone)]
enum Value {
    None,
    Bool(bool),
    Int(i64),
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(String),
    Storage(StorageRef),
    Tensor(TensorRef),
    /// Numbers and bytes that no tensor needs.
    Opaque,
}

enum Slot {
    Mark,
    Value(Id),
}

/// What one pickle holds.
pub(crate) struct Unpickled {
    values: Vec<Value>,
    root: Id,
    /// Length of the pickle, so that the next one in the file can be found.
    pub(crate) bytes: usize,
}

impl Unpickled {
    /// The model's tensors by name: those of the root, or of the one dictionary in it that has a model's, such as `model` or
    /// `state_dict` of a training. What else lies there is passed over.
    pub(crate) fn state_dict(&self) -> Result<BTreeMap<String, TensorRef>> {
        if !matches!(self.values[self.root], Value::Dict(_)) {
            return damaged("it holds no dictionary of tensors");
        }
        let found = self.dictionaries();
        let of_model: Vec<_> = found
            .iter()
            .filter(|(_, tensors)| tensors.keys().any(|name| name.contains("layers.")))
            .collect();
        let candidates = if of_model.is_empty() {
            found.iter().collect()
        } else {
            of_model
        };
        match candidates.as_slice() {
            [] => damaged(self.without_tensors()),
            // The root comes first, and goes before what lies in it.
            [(place, tensors), ..] if candidates.len() == 1 || place.is_empty() => Ok(tensors
                .iter()
                .map(|(name, tensor)| ((*name).to_owned(), (*tensor).clone()))
                .collect()),
            several => {
                let places: Vec<String> = several.iter().map(|(place, _)| format!("`{place}`")).collect();
                damaged(format!(
                    "it has tensors in several dictionaries ({}); save one of them alone",
                    places.join(", ")
                ))
            }
        }
    }

    /// Every dictionary with tensors under names, by where it lies: `""` for the root, `model.ema` for one in another.
    fn dictionaries(&self) -> Vec<(String, BTreeMap<&str, &TensorRef>)> {
        /// How deep dictionaries are looked into, and how many of them.
        const DEPTH: usize = 3;
        const MOST: usize = 10_000;
        let mut found = Vec::new();
        let mut waiting = VecDeque::from([(String::new(), self.root, 0)]);
        let mut seen = 0;
        while let Some((place, id, depth)) = waiting.pop_front() {
            let Value::Dict(items) = &self.values[id] else {
                continue;
            };
            let mut tensors = BTreeMap::new();
            for &(key, value) in items {
                let Value::Text(name) = &self.values[key] else {
                    continue;
                };
                match &self.values[value] {
                    Value::Tensor(tensor) => drop(tensors.insert(name.as_str(), tensor)),
                    Value::Dict(_) if depth < DEPTH && seen < MOST => {
                        seen += 1;
                        let place = match place.as_str() {
                            "" => name.clone(),
                            outer => format!("{outer}.{name}"),
                        };
                        waiting.push_back((place, value, depth + 1));
                    }
                    _ => {}
                }
            }
            if !tensors.is_empty() {
                found.push((place, tensors));
            }
        }
        found
    }

    /// What the root has instead of tensors.
    fn without_tensors(&self) -> String {
        const NAMED: usize = 5;
        let Value::Dict(items) = &self.values[self.root] else {
            return "it holds no dictionary of tensors".into();
        };
        let names = items.iter().filter_map(|&(key, _)| match &self.values[key] {
            Value::Text(name) => Some(format!("`{name}`")),
            _ => None,
        });
        let names: Vec<String> = names.take(NAMED).collect();
        match names.is_empty() {
            true => "its dictionary has no tensors under names".into(),
            false => format!("its dictionary has no tensors, but {}", names.join(", ")),
        }
    }

    /// The root as a list of strings.
    pub(crate) fn strings(&self) -> Result<Vec<&str>> {
        let Value::List(items) = &self.values[self.root] else {
            return damaged("it holds no list of storages");
        };
        items
            .iter()
            .map(|&item| match &self.values[item] {
                Value::Text(text) => Ok(text.as_str()),
                _ => damaged("the name of a storage is not a string"),
            })
            .collect()
    }

    /// The root as a dictionary, and the flag of that name in it.
    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        let Value::Dict(items) = &self.values[self.root] else {
            return None;
        };
        items
            .iter()
            .find_map(|&(key, value)| match (&self.values[key], &self.values[value]) {
                (Value::Text(key), &Value::Bool(flag)) if key == name => Some(flag),
                _ => None,
            })
    }

    /// Every storage that the pickle refers to, by key.
    pub(crate) fn storages(&self) -> BTreeMap<&str, &StorageRef> {
        let storages = self.values.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some((storage.key.as_str(), storage)),
            _ => None,
        });
        storages.collect()
    }
}

/// Runs the pickle at the start of `bytes`.
pub(crate) fn unpickle(bytes: &[u8]) -> Result<Unpickled> {
    let mut machine = Machine {
        bytes,
        position: 0,
        values: Vec::new(),
        stack: Vec::new(),
        memo: BTreeMap::new(),
        next_memo: 0,
    };
    while !machine.step()? {}
    let root = machine.pop()?;
    Ok(Unpickled {
        values: machine.values,
        root,
        bytes: machine.position,
    })
}

struct Machine<'a> {
    bytes: &'a [u8],
    position: usize,
    values: Vec<Value>,
    stack: Vec<Slot>,
    memo: BTreeMap<u32, Id>,
    next_memo: u32,
}

impl<'a> Machine<'a> {
    /// Runs one instruction; true at the last one.
    fn step(&mut self) -> Result<bool> {
        let [op] = self.array()?;
        match op {
            b'.' => return Ok(true),
            0x80 => self.protocol()?,
            // FRAME: a length that buffering readers use.
            0x95 => self.skip(8)?,
            b'(' => self.stack.push(Slot::Mark),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(Slot::Value(top));
            }
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.memo_step(op)?,
            // Sets: nothing in them is a weight.
            0x8f => self.push(Value::Opaque),
            0x90 => drop(self.pop_to_mark()?),
            0x91 => {
                drop(self.pop_to_mark()?);
                self.push(Value::Opaque);
            }
            b'N' | 0x88 | 0x89 | b'K' | b'M' | b'J' | 0x8a | 0x8b | b'G' | b'I' | b'L' | b'F' => {
                self.number_step(op)?;
            }
            b'X' | 0x8c | 0x8d | b'U' | b'T' | b'B' | b'C' | 0x8e => self.text_step(op)?,
            b')' | b't' | 0x85 | 0x86 | 0x87 | b']' | b'l' | b'}' | b'd' | b'a' | b'e' | b's' | b'u' => {
                self.container_step(op)?;
            }
            b'c' | 0x93 | b'R' | 0x81 | b'b' | b'Q' => self.object_step(op)?,
            _ => {
                return damaged(format!(
                    "it uses the pickle instruction 0x{op:02x}, which saving tensors never needs"
                ));
            }
        }
        Ok(false)
    }

    fn protocol(&mut self) -> Result<()> {
        let [protocol] = self.array()?;
        if !(2..=5).contains(&protocol) {
            return damaged(format!("its pickle protocol is {protocol}"));
        }
        Ok(())
    }

    fn memo_step(&mut self, op: u8) -> Result<()> {
        match op {
            b'q' => {
                let [at] = self.array()?;
                self.memoize(at.into())
            }
            b'r' => {
                let at = u32::from_le_bytes(self.array()?);
                self.memoize(at)
            }
            0x94 => self.memoize(self.next_memo),
            b'h' => {
                let [at] = self.array()?;
                self.recall(at.into())
            }
            _ => {
                let at = u32::from_le_bytes(self.array()?);
                self.recall(at)
            }
        }
    }

    fn memoize(&mut self, at: u32) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(at, top);
        self.next_memo = self.memo.len() as u32;
        Ok(())
    }

    fn recall(&mut self, at: u32) -> Result<()> {
        let id = self.memo.get(&at).copied();
        let id = id.ok_or_else(|| PickleError::Damaged("it recalls a value that it never made".into()))?;
        self.stack.push(Slot::Value(id));
        Ok(())
    }

    fn number_step(&mut self, op: u8) -> Result<()> {
        let value = match op {
            b'N' => Value::None,
            0x88 | 0x89 => Value::Bool(op == 0x88),
            b'K' => Value::Int(self.array::<1>()?[0].into()),
            b'M' => Value::Int(u16::from_le_bytes(self.array()?).into()),
            b'J' => Value::Int(i32::from_le_bytes(self.array()?).into()),
            0x8a => {
                let [length] = self.array()?;
                self.long(length.into())?
            }
            0x8b => {
                let length = u32::from_le_bytes(self.array()?);
                self.long(length as usize)?
            }
            b'G' => {
                self.skip(8)?;
                Value::Opaque
            }
            // I, L, F: text up to the end of the line.
            _ => {
                let line = self.line()?;
                line.trim_end_matches('L')
                    .parse()
                    .map_or(Value::Opaque, Value::Int)
            }
        };
        self.push(value);
        Ok(())
    }

    /// A little-endian two's complement number of that many bytes.
    fn long(&mut self, length: usize) -> Result<Value> {
        let raw = self.take(length)?;
        if raw.len() > 8 {
            return Ok(Value::Opaque);
        }
        let negative = raw.last().is_some_and(|b| b & 0x80 != 0);
        let mut all = if negative { [0xFF; 8] } else { [0; 8] };
        all[..raw.len()].copy_from_slice(raw);
        Ok(Value::Int(i64::from_le_bytes(all)))
    }

    fn text_step(&mut self, op: u8) -> Result<()> {
        let length = match op {
            0x8c | b'U' | b'C' => self.array::<1>()?[0].into(),
            b'X' | b'T' | b'B' => u32::from_le_bytes(self.array()?).into(),
            _ => u64::from_le_bytes(self.array()?),
        };
        let raw = self.take(usize::try_from(length).unwrap_or(usize::MAX))?;
        let value = match (op, std::str::from_utf8(raw)) {
            (b'B' | b'C' | 0x8e, _) => Value::Opaque,
            (_, Ok(text)) => Value::Text(text.to_owned()),
            (_, Err(_)) => return damaged("a string of it is not UTF-8"),
        };
        self.push(value);
        Ok(())
    }

    fn container_step(&mut self, op: u8) -> Result<()> {
        match op {
            b')' => self.push(Value::Tuple(Vec::new())),
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Tuple(items));
            }
            0x85..=0x87 => {
                let mut items = (0..=op - 0x85).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
                items.reverse();
                self.push(Value::Tuple(items));
            }
            b']' => self.push(Value::List(Vec::new())),
            b'l' => {
                let items = self.pop_to_mark()?;
                self.push(Value::List(items));
            }
            b'}' => self.push(Value::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Dict(pairs(&items)?));
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])?;
            }
            _ => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }
        }
        Ok(())
    }

    fn append(&mut self, items: Vec<Id>) -> Result<()> {
        let top = self.top()?;
        match &mut self.values[top] {
            Value::List(list) => {
                list.extend(items);
                Ok(())
            }
            Value::Opaque => Ok(()),
            _ => damaged("it appends to what is no list"),
        }
    }

    fn set_items(&mut self, items: &[Id]) -> Result<()> {
        let top = self.top()?;
        match &mut self.values[top] {
            Value::Dict(dict) => {
                dict.extend(pairs(items)?);
                Ok(())
            }
            Value::Opaque => Ok(()),
            _ => damaged("it sets an item of what is no dictionary"),
        }
    }

    fn object_step(&mut self, op: u8) -> Result<()> {
        match op {
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.values[module].clone(), self.values[name].clone()) {
                    (Value::Text(module), Value::Text(name)) => self.global(&module, &name),
                    _ => damaged("the name of an object is not a string"),
                }
            }
            b'R' | 0x81 => {
                let (args, callable) = (self.pop()?, self.pop()?);
                let value = self.call(callable, args)?;
                self.push(value);
                Ok(())
            }
            b'b' => {
                // Attributes of the object below: torch's module versions, which tensors do not need.
                let _state = self.pop()?;
                match self.values[self.top()?] {
                    Value::Dict(_) | Value::Tensor(_) | Value::Opaque => Ok(()),
                    _ => damaged("it sets the attributes of something that has none"),
                }
            }
            _ => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(Value::Storage(storage));
                Ok(())
            }
        }
    }

    /// Pushes a name if torch's tensors need it.
    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        let full = format!("{module}.{name}");
        let known = CALLABLES.contains(&full.as_str())
            || INERT.contains(&full.as_str())
            || storage_dtype(&full).is_some()
            || tensor_dtype(&full).is_some()
            || matches!(full.as_str(), "torch.Tensor" | "torch.nn.parameter.Parameter");
        if !known {
            return Err(PickleError::Object(full));
        }
        self.push(Value::Global(full));
        Ok(())
    }

    /// What the callable would return, for the few that are known.
    fn call(&self, callable: Id, args: Id) -> Result<Value> {
        let (Value::Global(name), Value::Tuple(args)) = (&self.values[callable], &self.values[args]) else {
            return damaged("it calls what is no function");
        };
        match (name.as_str(), args.as_slice()) {
            ("torch._tensor._rebuild_from_type_v2", &[function, _, inner, ..]) => {
                let Value::Global(inner_name) = &self.values[function] else {
                    return damaged("it calls what is no function");
                };
                if inner_name == name {
                    return damaged("a tensor is wrapped twice");
                }
                self.call(function, inner)
            }
            ("collections.OrderedDict", []) => Ok(Value::Dict(Vec::new())),
            ("collections.OrderedDict", &[items]) => self.dict_of_pairs(items),
            ("collections.defaultdict", _) => Ok(Value::Dict(Vec::new())),
            (name, _) if INERT.contains(&name) => Ok(Value::Opaque),
            ("torch.Size", &[shape]) => match &self.values[shape] {
                Value::Tuple(items) | Value::List(items) => Ok(Value::Tuple(items.clone())),
                _ => damaged("a shape is no tuple"),
            },
            ("torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2", args) => {
                self.tensor(args, None)
            }
            ("torch._utils._rebuild_tensor_v3", args) => self.tensor(args, args.get(6).copied()),
            (
                "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state",
                &[data, ..],
            ) => match &self.values[data] {
                Value::Tensor(tensor) => Ok(Value::Tensor(tensor.clone())),
                _ => damaged("a parameter is no tensor"),
            },
            _ if CALLABLES.contains(&name.as_str()) => damaged(format!("`{name}` has unexpected arguments")),
            _ => Err(PickleError::Object(name.clone())),
        }
    }

    fn dict_of_pairs(&self, items: Id) -> Result<Value> {
        let Value::List(items) = &self.values[items] else {
            return damaged("a dictionary is made from what is no list");
        };
        let pair = |&item: &Id| match &self.values[item] {
            Value::Tuple(pair) | Value::List(pair) if pair.len() == 2 => Ok((pair[0], pair[1])),
            _ => damaged("a dictionary is made from what are no pairs"),
        };
        items.iter().map(pair).collect::<Result<_>>().map(Value::Dict)
    }

    /// (storage, offset, shape, strides, …)
    fn tensor(&self, args: &[Id], dtype: Option<Id>) -> Result<Value> {
        let &[storage, offset, shape, strides, ..] = args else {
            return damaged("a tensor lacks arguments");
        };
        let (Value::Storage(storage), &Value::Int(offset)) = (&self.values[storage], &self.values[offset])
        else {
            return damaged("a tensor has no storage");
        };
        let dtype = match dtype.map(|id| &self.values[id]) {
            None => Some(storage.dtype.clone()),
            Some(Value::Global(name)) => tensor_dtype(name),
            Some(_) => None,
        };
        let Some(dtype) = dtype else {
            return damaged("a tensor has no number format");
        };
        let shape: Vec<usize> = self.numbers(shape)?;
        let strides: Vec<u64> = self.numbers(strides)?;
        let (Ok(offset), true) = (u64::try_from(offset), shape.len() == strides.len()) else {
            return damaged("a tensor's shape, strides and offset do not go together");
        };
        Ok(Value::Tensor(TensorRef {
            storage: storage.clone(),
            dtype,
            offset,
            shape,
            strides,
        }))
    }

    fn numbers<T: TryFrom<i64>>(&self, id: Id) -> Result<Vec<T>> {
        let Value::Tuple(items) = &self.values[id] else {
            return damaged("a tensor's shape is no tuple");
        };
        let number = |&item: &Id| match self.values[item] {
            Value::Int(n) => T::try_from(n).or_else(|_| damaged("a tensor's shape or stride is negative")),
            _ => damaged("a tensor's shape or stride is no number"),
        };
        items.iter().map(number).collect()
    }

    /// ("storage", type, key, device, elements[, view])
    fn storage(&self, id: Id) -> Result<StorageRef> {
        let wrong = || damaged("it refers to something that is no storage");
        let Value::Tuple(items) = &self.values[id] else {
            return wrong();
        };
        let &[tag, class, key, _device, elements, ref view @ ..] = items.as_slice() else {
            return wrong();
        };
        let value = |id: Id| &self.values[id];
        let (Value::Text(tag), Value::Global(class), Value::Text(key), &Value::Int(elements)) =
            (value(tag), value(class), value(key), value(elements))
        else {
            return wrong();
        };
        let (Some(dtype), Ok(elements), "storage") =
            (storage_dtype(class), u64::try_from(elements), tag.as_str())
        else {
            return wrong();
        };
        if view.iter().any(|&id| !matches!(value(id), Value::None)) {
            return damaged("it uses storages that are views of others, as torch before 0.4 did");
        }
        Ok(StorageRef {
            key: key.clone(),
            dtype,
            elements,
        })
    }

    fn push(&mut self, value: Value) {
        self.stack.push(Slot::Value(self.values.len()));
        self.values.push(value);
    }

    fn pop(&mut self) -> Result<Id> {
        match self.stack.pop() {
            Some(Slot::Value(id)) => Ok(id),
            _ => damaged("it takes a value that is not there"),
        }
    }

    fn top(&self) -> Result<Id> {
        match self.stack.last() {
            Some(&Slot::Value(id)) => Ok(id),
            _ => damaged("it takes a value that is not there"),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>> {
        let Some(at) = self.stack.iter().rposition(|slot| matches!(slot, Slot::Mark)) else {
            return damaged("it ends a group that it never began");
        };
        let items = self.stack.drain(at..).filter_map(|slot| match slot {
            Slot::Value(id) => Some(id),
            Slot::Mark => None,
        });
        Ok(items.collect())
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self
            .position
            .checked_add(length)
            .filter(|&end| end <= self.bytes.len());
        let Some(end) = end else {
            return damaged("its pickle ends too early");
        };
        let taken = &self.bytes[self.position..end];
        self.position = end;
        Ok(taken)
    }

    fn skip(&mut self, length: usize) -> Result<()> {
        self.take(length).map(drop)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn line(&mut self) -> Result<&'a str> {
        let Some(length) = self.bytes[self.position..].iter().position(|&b| b == b'\n') else {
            return damaged("its pickle ends too early");
        };
        let line = self.take(length + 1)?;
        let line = std::str::from_utf8(&line[..length]);
        line.or_else(|_| damaged("a line of it is not UTF-8"))
    }
}

fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>> {
    match items.as_chunks::<2>() {
        (pairs, []) => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
        _ => damaged("a dictionary has a key without a value"),
    }
}

/// The callables that [`Machine::call`] interprets.
const CALLABLES: [&str; 8] = [
    "collections.OrderedDict",
    "torch.Size",
    "torch._tensor._rebuild_from_type_v2",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
];

/// What trainings put beside tensors. It is neither made nor called: something that is passed over stands for it.
const INERT: [&str; 17] = [
    "_codecs.encode",
    "argparse.Namespace",
    "builtins.dict",
    "builtins.float",
    "builtins.int",
    "builtins.list",
    "builtins.set",
    "collections.defaultdict",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "pathlib.PosixPath",
    "torch.device",
    "types.SimpleNamespace",
];

/// The format of a typed storage class, and bytes for the untyped one.
fn storage_dtype(class: &str) -> Option<StoredDtype> {
    let name = match class {
        "torch.FloatStorage" => "F32",
        "torch.DoubleStorage" => "F64",
        "torch.HalfStorage" => "F16",
        "torch.BFloat16Storage" => "BF16",
        "torch.LongStorage" => "I64",
        "torch.IntStorage" => "I32",
        "torch.ShortStorage" => "I16",
        "torch.CharStorage" => "I8",
        "torch.ByteStorage" | "torch.storage.UntypedStorage" | "torch.UntypedStorage" => "U8",
        "torch.BoolStorage" => "BOOL",
        "torch.ComplexFloatStorage" => "C64",
        _ => return None,
    };
    Some(StoredDtype::from_name(name))
}

/// The format of a `torch.dtype`.
fn tensor_dtype(name: &str) -> Option<StoredDtype> {
    let name = match name {
        "torch.float32" => "F32",
        "torch.float64" => "F64",
        "torch.float16" => "F16",
        "torch.bfloat16" => "BF16",
        "torch.int64" => "I64",
        "torch.int32" => "I32",
        "torch.int16" => "I16",
        "torch.int8" => "I8",
        "torch.uint8" => "U8",
        "torch.uint16" => "U16",
        "torch.uint32" => "U32",
        "torch.uint64" => "U64",
        "torch.bool" => "BOOL",
        "torch.complex64" => "C64",
        "torch.float8_e4m3fn" => "F8_E4M3",
        "torch.float8_e5m2" => "F8_E5M2",
        "torch.float8_e8m0fnu" => "F8_E8M0",
        _ => return None,
    };
    Some(StoredDtype::from_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_every_callable_but_those_of_tensors() {
        let error = unpickle(b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R.").err();
        assert_eq!(error, Some(PickleError::Object("os.system".into())));
        let stack_global = unpickle(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.").err();
        assert_eq!(stack_global, Some(PickleError::Object("builtins.eval".into())));
        // A storage class is a known name, but nothing to be called.
        let called = unpickle(b"\x80\x02ctorch\nFloatStorage\n)R.").err();
        assert_eq!(called, Some(PickleError::Object("torch.FloatStorage".into())));
    }

    #[test]
    fn deep_nesting_ends_in_a_value_and_not_in_an_overflow() {
        let mut bytes = b"\x80\x02)".to_vec();
        bytes.extend(std::iter::repeat_n(0x85, 1_000_000));
        bytes.push(b'.');
        let unpickled = unpickle(&bytes).unwrap();
        assert_eq!(unpickled.bytes, bytes.len());
        assert!(unpickled.state_dict().is_err());
    }

    #[test]
    fn reads_numbers_of_every_width() {
        let ints = |bytes: &[u8]| {
            let Unpickled { values, root, .. } = unpickle(bytes).unwrap();
            match values[root] {
                Value::Int(n) => n,
                ref other => panic!("{other:?}"),
            }
        };
        assert_eq!(ints(b"K\x07."), 7);
        assert_eq!(ints(b"M\x01\x02."), 0x201);
        assert_eq!(ints(b"J\xff\xff\xff\xff."), -1);
        assert_eq!(ints(b"\x8a\x01\xfe."), -2);
        assert_eq!(ints(b"\x8a\x00."), 0);
        assert_eq!(ints(b"\x8a\x05\0\0\0\0\x01."), 1 << 32);
        assert_eq!(ints(b"L12L\n."), 12);
    }

    proptest! {
        #[test]
        fn no_input_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(unpickled) = unpickle(&bytes) {
                let _ = (unpickled.state_dict(), unpickled.strings().is_ok(), unpickled.storages().len());
            }
        }

        #[test]
        fn no_mix_of_known_instructions_makes_it_panic(
            ops in proptest::collection::vec(proptest::sample::select(b"()}]tdlaesuRbQ.NK\x85\x86\x87\x810q1h\x94".to_vec()), 0..200),
        ) {
            if let Ok(unpickled) = unpickle(&ops) {
                let _ = unpickled.state_dict();
            }
        }
    }
}
