//! Whole folders, packed and back, and what is not packed or not any more.

use super::*;
use crate::checkpoint::build::FileBuilder;
use crate::checkpoint::{CheckpointError, StoredDtype, packed};
use proptest::prelude::*;
use std::fs;
use tempfile::TempDir;

/// Name, dtype, shape, bytes.
type Tensor = (String, &'static str, Vec<usize>, Vec<u8>);

/// A safetensors file as a foreign program may write it: any order of names, blanks, metadata or none.
fn file(metadata: Option<&str>, tensors: &[Tensor]) -> Vec<u8> {
    let mut fields: Vec<String> = metadata
        .map(|m| format!("\"__metadata__\" :{m}"))
        .into_iter()
        .collect();
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let (start, end) = (data.len(), data.len() + bytes.len());
        fields.push(format!(
            "\"{name}\": {{\"data_offsets\":[{start}, {end}],\"dtype\":\"{dtype}\",\"shape\":{shape:?}}}"
        ));
        data.extend_from_slice(bytes);
    }
    let header = format!("{{{}}}  ", fields.join(" ,\n"));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend(data);
    file
}

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("model");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("config.json"), "{}").unwrap();
    for (name, content) in files {
        fs::write(dir.join(name), content).unwrap();
    }
    root
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (
            entry.file_name().into_string().unwrap(),
            fs::read(entry.path()).unwrap(),
        )
    });
    entries.collect()
}

fn open(root: &TempDir, name: &str) -> Checkpoint {
    Checkpoint::open(&root.path().join(name)).unwrap()
}

/// Packs `model`, unpacks it and compares every file. Gives the summary.
fn there_and_back(root: &TempDir) -> PackSummary {
    let at = |name: &str| root.path().join(name);
    let plain = open(root, "model");
    let summary = pack(&plain, &at("packed"), true).unwrap();
    let packed = open(root, "packed");
    assert_eq!(packed.fingerprint(), plain.fingerprint());
    assert_eq!(packed.content_sha256().unwrap(), plain.content_sha256().unwrap());
    for (name, info) in plain.tensors() {
        let other = packed.info(name).unwrap();
        assert_eq!((&other.dtype, &other.shape), (&info.dtype, &info.shape), "{name}");
        assert!(packed.raw(name).unwrap() == plain.raw(name).unwrap(), "{name}");
    }
    unpack(&packed, &at("unpacked"), true).unwrap();
    assert!(files(&at("model")) == files(&at("unpacked")));
    summary
}

const DTYPES: [(&str, usize); 8] = [
    ("BF16", 2),
    ("F16", 2),
    ("F32", 4),
    ("F64", 8),
    ("I64", 8),
    ("BOOL", 1),
    ("F8_E4M3", 1),
    ("SOMETHING_NEW", 3),
];

/// A tensor with zeros in no order, in n:m groups, in whole rows, everywhere or nowhere; some elements are −0.
fn tensor() -> impl Strategy<Value = Tensor> {
    let shape = prop_oneof![
        1 => Just(vec![]),
        1 => Just(vec![0]),
        1 => Just(vec![3, 0, 2]),
        2 => prop::collection::vec(1usize..400, 1),
        6 => (1usize..40, 1usize..100).prop_map(|(rows, columns)| vec![rows, columns]),
        1 => (1usize..4, 1usize..9, 1usize..20).prop_map(|(a, b, c)| vec![a, b, c]),
    ];
    let name = prop_oneof![6 => "[a-z]{1,8}\\.weight", 1 => "[ab]#mask", 1 => "[ab]#2:4", 1 => "[ab]"];
    (
        name,
        prop::sample::select(DTYPES.to_vec()),
        shape,
        0usize..17,
        any::<u64>(),
    )
        .prop_map(|(name, (dtype, width), shape, zeros, seed)| {
            let elements: usize = shape.iter().product();
            let m = 2 + seed as usize % 15;
            let mut bytes = Vec::with_capacity(elements * width);
            for i in 0..elements {
                let random = (seed ^ (i as u64 + 1)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                let zero = match zeros {
                    // n:m groups that begin at another place in each row or not.
                    0..5 => (i % m + (i / m)) % m < zeros,
                    5 => true,
                    6 => false,
                    7 => i / 30 % 2 == 0,
                    _ => random >> 60 < zeros as u64,
                };
                let element = match (zero, random % 50) {
                    (true, _) => 0,
                    (false, 0) => 1u64 << (8 * width - 1),
                    (false, _) => random | 1,
                };
                bytes.extend_from_slice(&element.to_le_bytes()[..width]);
            }
            (name, dtype, shape, bytes)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_file_comes_back(tensors in prop::collection::vec(tensor(), 1..8), pt in any::<bool>()) {
        let mut tensors = tensors;
        let mut seen = std::collections::BTreeSet::new();
        tensors.retain(|(name, ..)| seen.insert(name.clone()));
        let metadata = pt.then_some("{ \"format\":\"pt\", \"k\\u00e9y\":\"v\" }");
        let root = folder(&[("model.safetensors", &file(metadata, &tensors)), ("tokenizer.json", b"{}")]);
        let summary = there_and_back(&root);
        prop_assert_eq!(summary.packed_tensors.count + summary.other_tensors.count, tensors.len());
    }
}

/// Half of 4096 f16 in 2:4, a quarter of 4096 bf16 without order, and one dense tensor.
fn sample() -> Vec<u8> {
    let halves = |keep: fn(u32) -> bool| {
        (0..4096u32)
            .flat_map(|i| {
                let value = i.wrapping_mul(2_654_435_761) >> 16 | 1;
                (if keep(i) { value as u16 } else { 0 }).to_le_bytes()
            })
            .collect::<Vec<u8>>()
    };
    let tensors = [
        ("a.weight".into(), "F16", vec![64, 64], halves(|i| i % 4 < 2)),
        (
            "b.weight".into(),
            "BF16",
            vec![64, 64],
            halves(|i| i.wrapping_mul(2_654_435_761) >> 30 == 0),
        ),
        ("c.weight".into(), "F16", vec![8, 8], vec![1; 128]),
    ];
    file(Some("{\"format\":\"pt\"}"), &tensors)
}

#[test]
fn sizes_and_forms() {
    let root = folder(&[("model.safetensors", &sample())]);
    let summary = there_and_back(&root);
    let forms: Vec<&str> = summary.by_encoding.keys().map(String::as_str).collect();
    assert_eq!(forms, ["2:4", "mask"]);
    assert_eq!(summary.by_encoding["2:4"].packed_bytes, 4096 + 4096 / 4 * 3 / 8);
    assert_eq!(summary.other_tensors.count, 1);
    let packed = fs::metadata(root.path().join("packed/model.packed.safetensors"))
        .unwrap()
        .len();
    assert_eq!(summary.weight_files.packed_bytes, packed);
    assert_eq!(summary.weight_files.plain_bytes, sample().len() as u64);
    // A packed folder may be packed again.
    let again = pack(&open(&root, "packed"), &root.path().join("again"), false).unwrap();
    assert_eq!(again, summary);
    assert!(files(&root.path().join("again")) == files(&root.path().join("packed")));
}

#[test]
fn shards_and_their_index() {
    let one = sample();
    let two = file(None, &[("d.weight".into(), "F32", vec![300], vec![0; 1200])]);
    let index = br#"{"weight_map": {"d.weight":"model-2.safetensors", "a.weight":"model-1.safetensors"}}"#;
    let root = folder(&[
        ("model-1.safetensors", &one),
        ("model-2.safetensors", &two),
        ("model.safetensors.index.json", index),
    ]);
    there_and_back(&root);
    let expected = [
        "config.json",
        "model-1.packed.safetensors",
        "model-2.packed.safetensors",
        "model.packed.safetensors.index.json",
    ];
    let found = files(&root.path().join("packed"));
    assert!(found.keys().eq(expected), "{:?}", found.keys());
    fs::remove_file(root.path().join("packed/model-2.packed.safetensors")).unwrap();
    let error = Checkpoint::open(&root.path().join("packed")).unwrap_err();
    assert!(
        matches!(error, Error::Checkpoint(CheckpointError::MissingShard { .. })),
        "{error}"
    );
}

#[test]
fn a_file_of_another_name() {
    let root = folder(&[("weights.safetensors", &sample())]);
    there_and_back(&root);
    assert!(root.path().join("packed/weights.packed.safetensors").exists());
}

/// What a reader of a folder with this packed file says: the error of opening or of reading everything.
fn verdict(root: &TempDir, content: &[u8]) -> Result<()> {
    let dir = root.path().join("packed");
    fs::write(dir.join("model.packed.safetensors"), content).unwrap();
    check(&Checkpoint::open(&dir)?)
}

#[test]
fn every_damaged_bit_is_noticed() {
    let small: Vec<u8> = (0..200u16).flat_map(|i| (i % 5 * 1000).to_le_bytes()).collect();
    let groups: Vec<u8> = (0..600u16)
        .flat_map(|i| (i % 2 * (i + 1)).to_le_bytes())
        .collect();
    let mut sparse = small.clone();
    sparse[..300].fill(0);
    let tensors = [
        ("a".into(), "F16", vec![600], groups),
        ("b".into(), "BF16", vec![200], small),
        ("c".into(), "BF16", vec![200], sparse),
    ];
    let root = folder(&[("model.safetensors", &file(None, &tensors))]);
    let summary = there_and_back(&root);
    assert!(summary.packed_tensors.count >= 2, "{summary:?}");
    let good = fs::read(root.path().join("packed/model.packed.safetensors")).unwrap();
    assert!(verdict(&root, &good).is_ok());
    for position in 0..good.len() {
        let mut bad = good.clone();
        bad[position] ^= 1 << (position % 8);
        if verdict(&root, &bad).is_ok() {
            // What is there for other programs only.
            let free = b"\"format\":\"pt\"";
            let around = &good[position.saturating_sub(free.len())..(position + free.len()).min(good.len())];
            let is_free = around.windows(free.len()).any(|w| w == free);
            assert!(is_free, "byte {position}: {}", String::from_utf8_lossy(around));
        }
    }
    for length in (0..good.len()).step_by(7) {
        assert!(verdict(&root, &good[..length]).is_err(), "{length} bytes");
    }
}

/// A packed file that nobody wrote in good faith.
struct Forged {
    header: String,
    checksums: Vec<u32>,
    metadata: Vec<(&'static str, String)>,
    tensors: Vec<(&'static str, &'static str, Vec<u8>)>,
}

impl Forged {
    /// One tensor `a` of that dtype and shape.
    fn new(
        dtype: &str,
        shape: &str,
        bytes: u64,
        tensors: Vec<(&'static str, &'static str, Vec<u8>)>,
    ) -> Self {
        let header =
            format!("{{\"a\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[0,{bytes}]}}}}");
        Self {
            checksums: vec![packed::header_checksum("model.safetensors", header.as_bytes()), 0],
            header,
            metadata: vec![
                (packed::VERSION_KEY, packed::VERSION.into()),
                (packed::FILE_KEY, "model.safetensors".into()),
            ],
            tensors,
        }
    }

    fn bytes(self) -> Vec<u8> {
        let mut file = FileBuilder::default();
        let mut add = |name: &str, dtype: &str, bytes: Vec<u8>| {
            let dtype = StoredDtype::from_name(dtype);
            let width = dtype.bits().unwrap() as usize / 8;
            file.add_bytes(name.into(), dtype, vec![bytes.len() / width], bytes);
        };
        add(packed::HEADER_TENSOR, "U8", self.header.into_bytes());
        let checksums = self.checksums.iter().flat_map(|c| c.to_le_bytes()).collect();
        add(packed::CHECKSUM_TENSOR, "U32", checksums);
        self.tensors
            .into_iter()
            .for_each(|(name, dtype, bytes)| add(name, dtype, bytes));
        self.metadata
            .into_iter()
            .for_each(|(key, value)| file.note(key, value));
        let mut bytes = Vec::new();
        file.write(&mut |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })
        .unwrap();
        bytes
    }
}

#[test]
fn forged_files_give_errors() {
    let root = folder(&[("model.safetensors", &sample())]);
    there_and_back(&root);
    let refuse = |forged: Forged, word: &str| {
        let error = verdict(&root, &forged.bytes()).unwrap_err();
        assert!(error.to_string().contains(word), "{word}: {error}");
        assert!(error.hint().is_some(), "{error}");
    };
    let parts = |mask: usize, values: usize| {
        vec![
            ("a#mask", "U8", vec![0xFF; mask]),
            ("a#values", "F16", vec![1; values]),
        ]
    };
    let plain = || Forged::new("F16", "[8]", 16, parts(1, 16));
    refuse(plain(), "checksum");
    // Petabytes announced, a few bytes there.
    let huge = 1u64 << 50;
    refuse(
        Forged::new("F16", &format!("[{huge}]"), 2 * huge, parts(1, 16)),
        "does not fit",
    );
    refuse(
        Forged::new("F16", &format!("[{huge},{huge}]"), 16, parts(1, 16)),
        "no possible size",
    );
    let groups = vec![("a#1:16", "U8", vec![0; 4]), ("a#values", "F16", vec![1; 4])];
    refuse(
        Forged::new("F16", &format!("[{huge}]"), 2 * huge, groups),
        "does not fit",
    );
    refuse(Forged::new("F16", "[8]", 16, parts(1, 14)), "bits are set");
    refuse(Forged::new("F16", "[7]", 14, parts(1, 14)), "after the last");
    let groups = |code: u8| vec![("a#2:4", "U8", vec![code]), ("a#values", "F16", vec![1; 8])];
    refuse(Forged::new("F16", "[8]", 16, groups(7)), "code 7");
    let groups = vec![("a#3:4", "U8", vec![0]), ("a#values", "F16", vec![1; 8])];
    refuse(Forged::new("F16", "[8]", 16, groups), "bytes of values");
    let odd = vec![("a#02:4", "U8", vec![0]), ("a#values", "F16", vec![1; 8])];
    refuse(Forged::new("F16", "[8]", 16, odd), "does not hold `a`");
    refuse(
        Forged::new("F16", "[8]", 16, vec![("a#mask", "U8", vec![0])]),
        "no `a#values`",
    );
    let mut both = parts(1, 16);
    both.push(("a", "F16", vec![0; 16]));
    refuse(Forged::new("F16", "[8]", 16, both), "belongs to no tensor");
    refuse(
        Forged::new("F16", "[8]", 16, vec![("a", "BF16", vec![0; 16])]),
        "should be F16",
    );
    refuse(Forged::new("F6_E2M3", "[4]", 3, parts(1, 8)), "cannot be packed");
    refuse(Forged::new("F32", "[8]", 32, parts(1, 16)), "is packed as");
    let mut forged = plain();
    forged.checksums.pop();
    refuse(forged, "0 checksums for 1");
    let mut forged = plain();
    forged.checksums.clear();
    refuse(forged, "no checksum");
    let mut forged = plain();
    forged.checksums[0] ^= 1;
    refuse(forged, "#header");
    let mut forged = plain();
    forged.metadata[0].1 = "2".into();
    refuse(forged, "version 2");
    let mut forged = plain();
    forged.metadata.remove(0);
    refuse(forged, "no `fista_pruner.packed`");
    let mut forged = plain();
    forged.metadata[1].1 = "other.safetensors".into();
    refuse(forged, "#header");
    for name in ["../evil.safetensors", "/etc/passwd", "", "a\\b"] {
        let mut forged = plain();
        forged.metadata[1].1 = name.into();
        refuse(forged, "not a plain file name");
    }
}

#[test]
fn what_cannot_be_packed_or_unpacked() {
    let root = folder(&[("model.safetensors", &sample())]);
    let error = unpack(&open(&root, "model"), &root.path().join("out"), false).unwrap_err();
    assert!(
        matches!(error, Error::Checkpoint(CheckpointError::NotPacked { .. })),
        "{error}"
    );
    let reserved = file(None, &[("#header".into(), "U8", vec![1], vec![1])]);
    let root = folder(&[("model.safetensors", &reserved)]);
    let error = pack(&open(&root, "model"), &root.path().join("out"), false).unwrap_err();
    assert!(
        matches!(error, Error::Checkpoint(CheckpointError::ReservedName { .. })),
        "{error}"
    );
    assert!(!root.path().join("out").exists());
}
