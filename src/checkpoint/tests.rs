//! Whole folders: opened, refused, pruned, and published or not.

use super::header::{Entry, Header};
use super::*;
use crate::error::{DestinationError, Error, IoError, Result};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

type Tensor<'a> = (&'a str, StoredDtype, Vec<usize>, Vec<u8>);

/// Writes a safetensors file with these tensors in this order; `metadata` is the raw JSON of `__metadata__`.
fn write_safetensors(path: &Path, metadata: Option<&str>, tensors: &[Tensor<'_>]) {
    let mut fields: Vec<String> = metadata
        .map(|m| format!("\"__metadata__\": {m}"))
        .into_iter()
        .collect();
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let (start, end) = (data.len(), data.len() + bytes.len());
        fields.push(format!(
            r#""{name}": {{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
        ));
        data.extend_from_slice(bytes);
    }
    let header = format!("{{{}}}  ", fields.join(", "));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(&data);
    fs::write(path, file).unwrap();
}

fn bytes(values: &[f32], dtype: &StoredDtype) -> Vec<u8> {
    encode(values, None, dtype).unwrap()
}

fn ramp(n: usize) -> Vec<f32> {
    (0..n).map(|i| i as f32 - n as f32 / 2.0 + 0.25).collect()
}

const PT: Option<&str> = Some(r#"{"format":"pt"}"#);

/// A root folder with a checkpoint `model` in it: two weights to prune, one tensor of a format that is not read.
fn sample() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("model");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("config.json"), "{\"model_type\": \"opt\"}").unwrap();
    let tensors = [
        (
            "z.weight",
            StoredDtype::F16,
            vec![2, 4],
            bytes(&ramp(8), &StoredDtype::F16),
        ),
        ("a.ids", StoredDtype::Other("I64".into()), vec![2], vec![7; 16]),
        (
            "a.weight",
            StoredDtype::BF16,
            vec![4, 2],
            bytes(&ramp(8), &StoredDtype::BF16),
        ),
    ];
    write_safetensors(&dir.join("model.safetensors"), PT, &tensors);
    root
}

/// The same with its weights in two shards.
fn sharded() -> TempDir {
    let root = sample();
    let dir = root.path().join("model");
    fs::remove_file(dir.join("model.safetensors")).unwrap();
    for (shard, name) in [("1", "a.weight"), ("2", "b.weight")] {
        let tensors = [(
            name,
            StoredDtype::F32,
            vec![2, 2],
            bytes(&ramp(4), &StoredDtype::F32),
        )];
        write_safetensors(
            &dir.join(format!("model-0000{shard}-of-00002.safetensors")),
            PT,
            &tensors,
        );
    }
    write_index(
        &dir,
        "a.weight",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    );
    root
}

fn write_index(dir: &Path, first: &str, first_shard: &str, second_shard: &str) {
    let map = serde_json::json!({ first: first_shard, "b.weight": second_shard });
    let index = serde_json::json!({ "metadata": {"total_size": 32}, "weight_map": map });
    fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

fn open(root: &TempDir) -> Checkpoint {
    Checkpoint::open(&root.path().join("model")).unwrap()
}

fn destination_error<T: std::fmt::Debug>(result: Result<T>) -> DestinationError {
    match result {
        Err(Error::Destination(error)) => error,
        other => panic!("expected an error of the destination, got {other:?}"),
    }
}

fn checkpoint_error<T: std::fmt::Debug>(result: Result<T>) -> CheckpointError {
    match result {
        Err(Error::Checkpoint(error)) => {
            assert!(!error.to_string().is_empty());
            error
        }
        other => panic!("expected an error of the checkpoint, got {other:?}"),
    }
}

fn open_error(root: &TempDir) -> CheckpointError {
    let error = checkpoint_error(Checkpoint::open(&root.path().join("model")));
    assert!(error.hint().is_some(), "{error}");
    error
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_checkpoint_may_be_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Checkpoint>();
}

#[test]
fn tensors_are_read_in_any_float_format() {
    let root = sample();
    let checkpoint = open(&root);
    assert_eq!(checkpoint.config_json(), "{\"model_type\": \"opt\"}");
    assert_eq!(
        checkpoint.tensors().map(|(name, _)| name).collect::<Vec<_>>(),
        ["a.ids", "a.weight", "z.weight"]
    );
    assert_eq!(checkpoint.read("z.weight", &[2, 4]).unwrap(), ramp(8));
    assert_eq!(checkpoint.read("a.weight", &[4, 2]).unwrap(), ramp(8));
    assert_eq!(checkpoint.raw("a.ids").unwrap(), [7; 16]);
    let shape = checkpoint_error(checkpoint.read("a.weight", &[2, 4]));
    assert!(
        matches!(shape, CheckpointError::Shape { expected, found, .. } if expected == [2, 4] && found == [4, 2])
    );
    assert!(matches!(
        checkpoint_error(checkpoint.read("a.ids", &[2])),
        CheckpointError::Dtype { .. }
    ));
    assert!(matches!(
        checkpoint_error(checkpoint.read("b", &[2])),
        CheckpointError::MissingTensor { .. }
    ));
}

#[test]
fn large_tensors_are_read_by_several_tasks() {
    let root = sample();
    let n = 3 * dtype::CHUNK_ELEMENTS + 5;
    for dtype in [
        StoredDtype::F32,
        StoredDtype::F16,
        StoredDtype::BF16,
        StoredDtype::F64,
    ] {
        let mut values: Vec<f32> = (0..n).map(|i| (i % 1999) as f32 * 0.25 - 200.0).collect();
        round_to(&mut values, None, &dtype);
        let path = root.path().join("model/model.safetensors");
        write_safetensors(
            &path,
            PT,
            &[("w", dtype.clone(), vec![n], bytes(&values, &dtype))],
        );
        assert_eq!(open(&root).read("w", &[n]).unwrap(), values);
    }
    let mut values = vec![1.0f32; n];
    values[n - 2] = f32::NAN;
    let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    write_safetensors(
        &root.path().join("model/model.safetensors"),
        PT,
        &[("w", StoredDtype::F32, vec![n], raw)],
    );
    let error = checkpoint_error(open(&root).read("w", &[n]));
    assert!(matches!(error, CheckpointError::NotFinite { position, .. } if position == n - 2));
}

#[test]
fn a_single_safetensors_file_of_another_name_is_found() {
    let root = sample();
    let dir = root.path().join("model");
    fs::rename(dir.join("model.safetensors"), dir.join("weights.safetensors")).unwrap();
    assert_eq!(open(&root).info("a.weight").unwrap().file, "weights.safetensors");
    fs::copy(dir.join("weights.safetensors"), dir.join("more.safetensors")).unwrap();
    assert!(matches!(open_error(&root), CheckpointError::NoWeights { .. }));
}

#[test]
fn each_way_a_folder_can_be_incomplete_has_its_error() {
    let root = sample();
    let dir = root.path().join("model");
    fs::remove_file(dir.join("model.safetensors")).unwrap();
    assert!(matches!(open_error(&root), CheckpointError::NoWeights { .. }));
    fs::remove_file(dir.join("config.json")).unwrap();
    assert!(matches!(open_error(&root), CheckpointError::NoConfig { .. }));
    fs::remove_dir(&dir).unwrap();
    assert!(matches!(open_error(&root), CheckpointError::NoFolder { .. }));
}

#[test]
fn each_way_shards_can_be_wrong_has_its_error() {
    let root = sharded();
    let dir = root.path().join("model");
    let second = dir.join("model-00002-of-00002.safetensors");
    let original = fs::read(&second).unwrap();
    assert_eq!(open(&root).tensors().count(), 2);

    fs::write(&second, &original[..original.len() - 3]).unwrap();
    assert!(matches!(open_error(&root), CheckpointError::Truncated { file, .. } if file == second));
    fs::write(&second, &original[..20]).unwrap();
    assert!(matches!(open_error(&root), CheckpointError::Truncated { .. }));
    fs::write(&second, "<html>404</html>").unwrap();
    assert!(matches!(open_error(&root), CheckpointError::Header { .. }));
    fs::remove_file(&second).unwrap();
    let error = open_error(&root);
    assert!(
        matches!(&error, CheckpointError::MissingShard { file, tensor } if *file == second && tensor == "b.weight")
    );

    fs::copy(dir.join("model-00001-of-00002.safetensors"), &second).unwrap();
    assert!(matches!(open_error(&root), CheckpointError::StoredTwice { .. }));
    fs::write(&second, &original).unwrap();
    let (first_shard, second_shard) = (
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    );
    write_index(&dir, "c.weight", first_shard, second_shard);
    assert!(matches!(open_error(&root), CheckpointError::NotInShard { tensor, .. } if tensor == "c.weight"));
    write_index(&dir, "a.weight", second_shard, second_shard);
    assert!(matches!(open_error(&root), CheckpointError::NotInShard { tensor, .. } if tensor == "a.weight"));
    write_index(
        &dir,
        "a.weight",
        "../model/model-00001-of-00002.safetensors",
        second_shard,
    );
    assert!(matches!(open_error(&root), CheckpointError::IndexPath { shard, .. } if shard.starts_with("..")));
    fs::write(dir.join("model.safetensors.index.json"), "{\"weight_map\": []}").unwrap();
    assert!(matches!(open_error(&root), CheckpointError::Index { .. }));
}

#[test]
fn the_fingerprint_follows_names_and_the_content_hash_numbers() {
    let root = sample();
    let path = root.path().join("model/model.safetensors");
    let (fingerprint, content) = (open(&root).fingerprint(), open(&root).content_sha256().unwrap());
    let original = fs::read(&path).unwrap();
    let mut changed = original.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&path, changed).unwrap();
    assert_eq!(open(&root).fingerprint(), fingerprint);
    assert_ne!(open(&root).content_sha256().unwrap(), content);
    let renamed = String::from_utf8_lossy(&original[..60]).find("z.weight").unwrap();
    let mut changed = original;
    changed[renamed] = b'y';
    fs::write(&path, changed).unwrap();
    assert_ne!(open(&root).fingerprint(), fingerprint);
    fs::write(root.path().join("model/config.json"), "{}").unwrap();
    assert_ne!(open(&root).fingerprint(), fingerprint);
}

proptest! {
    #[test]
    fn only_the_pruned_weights_change(
        entries in proptest::collection::vec((-100.0f32..100.0, any::<bool>()), 8),
    ) {
        let (values, keep): (Vec<f32>, Vec<bool>) = entries.into_iter().unzip();
        let root = sample();
        let output = root.path().join("out");
        let mut writer = CheckpointWriter::create(&open(&root), &output, false).unwrap();
        writer.write_weight("a.weight", &values, &keep).unwrap();
        let seen_before = Checkpoint::open(writer.partial()).unwrap().read("a.weight", &[4, 2]).unwrap();
        writer.finish().unwrap();

        let before = fs::read(root.path().join("model/model.safetensors")).unwrap();
        let after = fs::read(output.join("model.safetensors")).unwrap();
        // The pruned tensor is the last of the file; the header and the tensors before it are the same bytes.
        prop_assert_eq!(before.len(), after.len());
        prop_assert_eq!(&before[..before.len() - 16], &after[..after.len() - 16]);
        let mut expected = values;
        round_to(&mut expected, Some(&keep), &StoredDtype::BF16);
        let written = Checkpoint::open(&output).unwrap();
        prop_assert_eq!(written.read("a.weight", &[4, 2]).unwrap(), &*expected);
        prop_assert_eq!(seen_before, expected);
        prop_assert_eq!(written.read("z.weight", &[2, 4]).unwrap(), ramp(8));
        prop_assert_eq!(names(&output), names(&root.path().join("model")));
        prop_assert_eq!(names(root.path()), ["model", "out"]);
    }
}

#[test]
fn shards_and_their_index_stay() {
    let root = sharded();
    let output = root.path().join("out");
    let mut writer = CheckpointWriter::create(&open(&root), &output, false).unwrap();
    writer
        .write_weight("b.weight", &[1.0, 2.0, 3.0, 4.0], &[true, false, false, true])
        .unwrap();
    writer.finish().unwrap();
    assert_eq!(names(&output), names(&root.path().join("model")));
    for same in [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
    ] {
        assert_eq!(
            fs::read(output.join(same)).unwrap(),
            fs::read(root.path().join("model").join(same)).unwrap()
        );
    }
    let written = Checkpoint::open(&output).unwrap();
    assert_eq!(written.read("b.weight", &[2, 2]).unwrap(), [1.0, 0.0, 0.0, 4.0]);
}

#[test]
fn a_header_without_the_python_format_is_completed() {
    for metadata in [None, Some(r#"{"producer":"x"}"#), Some(r#"{"format":"mlx"}"#)] {
        let root = sample();
        let path = root.path().join("model/model.safetensors");
        let tensors = [
            (
                "b",
                StoredDtype::F32,
                vec![1, 3],
                bytes(&ramp(3), &StoredDtype::F32),
            ),
            ("a", StoredDtype::Other("NEW".into()), vec![5], vec![1, 2, 3]),
        ];
        write_safetensors(&path, metadata, &tensors);
        let output = root.path().join("out");
        let mut writer = CheckpointWriter::create(&open(&root), &output, false).unwrap();
        writer
            .write_weight("b", &[1.0, 2.0, 3.0], &[false, true, true])
            .unwrap();
        writer.finish().unwrap();
        let file = file::WeightFile::open(&output, "model.safetensors").unwrap();
        let (header, _) = Header::read(&file).unwrap();
        assert!(header.says_pt());
        assert_eq!(
            header
                .entries
                .iter()
                .map(|e: &Entry| e.name.as_str())
                .collect::<Vec<_>>(),
            ["b", "a"]
        );
        assert_eq!(
            header.metadata.unwrap().contains_key("producer"),
            metadata.is_some_and(|m| m.contains("producer"))
        );
        let written = Checkpoint::open(&output).unwrap();
        assert_eq!(written.read("b", &[1, 3]).unwrap(), [0.0, 2.0, 3.0]);
        assert_eq!(written.raw("a").unwrap(), [1, 2, 3]);
    }
}

#[test]
fn torch_files_become_safetensors_of_the_same_tensors() {
    let torch = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/torch/modern.bin");
    for sharded in [false, true] {
        let root = sample();
        let dir = root.path().join("model");
        fs::remove_file(dir.join("model.safetensors")).unwrap();
        if sharded {
            fs::copy(&torch, dir.join("pytorch_model-00001-of-00001.bin")).unwrap();
            let map = BTreeMap::from([("half", "pytorch_model-00001-of-00001.bin")]);
            let index = serde_json::json!({ "weight_map": map }).to_string();
            fs::write(dir.join("pytorch_model.bin.index.json"), index).unwrap();
        } else {
            fs::copy(&torch, dir.join("pytorch_model.bin")).unwrap();
        }
        let source = open(&root);
        let output = root.path().join("out");
        let mut writer = CheckpointWriter::create(&source, &output, false).unwrap();
        writer.write_weight("transposed", &ramp(20), &[true; 20]).unwrap();
        writer.finish().unwrap();
        let expected: &[&str] = if sharded {
            &[
                "config.json",
                "model-00001-of-00001.safetensors",
                "model.safetensors.index.json",
            ]
        } else {
            &["config.json", "model.safetensors"]
        };
        assert_eq!(names(&output), expected);
        let written = Checkpoint::open(&output).unwrap();
        assert_eq!(written.tensors().count(), source.tensors().count());
        for (name, info) in source.tensors() {
            let found = written.info(name).unwrap();
            assert_eq!((&found.dtype, &found.shape), (&info.dtype, &info.shape));
            assert!(
                name == "transposed" || written.raw(name).unwrap() == source.raw(name).unwrap(),
                "{name}"
            );
        }
        assert_eq!(written.read("transposed", &[4, 5]).unwrap(), ramp(20));
    }
}

#[test]
fn side_files_are_copied_and_dense_copies_are_not() {
    let root = sample();
    let dir = root.path().join("model");
    for name in [
        "tokenizer.json",
        "README.md",
        "flax_model.msgpack",
        "pytorch_model.bin",
        "consolidated.00.pth",
    ] {
        fs::write(dir.join(name), name).unwrap();
    }
    fs::write(dir.join("pytorch_model.bin.index.json"), "{}").unwrap();
    fs::write(dir.join("other.safetensors"), "").unwrap();
    fs::create_dir(dir.join("onnx")).unwrap();
    let mut read_only = fs::metadata(dir.join("README.md")).unwrap().permissions();
    read_only.set_readonly(true);
    fs::set_permissions(dir.join("README.md"), read_only).unwrap();
    let output = root.path().join("out");
    let mut writer = CheckpointWriter::create(&open(&root), &output, false).unwrap();
    let left_out = [
        "consolidated.00.pth",
        "flax_model.msgpack",
        "onnx/",
        "other.safetensors",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    ];
    assert_eq!(writer.left_out(), left_out);
    writer.add_file("README.md", b"new").unwrap();
    writer.add_file("pruning_report.json", b"{}").unwrap();
    for name in [
        "config.json",
        "model.safetensors",
        "x.index.json",
        "../x",
        "a/b",
        "",
    ] {
        let error = checkpoint_error(writer.add_file(name, b""));
        assert!(
            matches!(error, CheckpointError::SideFile { .. }) || name == "x.index.json",
            "{name}"
        );
    }
    writer.finish().unwrap();
    let expected = [
        "README.md",
        "config.json",
        "model.safetensors",
        "pruning_report.json",
        "tokenizer.json",
    ];
    assert_eq!(names(&output), expected);
    assert_eq!(fs::read(output.join("README.md")).unwrap(), b"new");
    assert_eq!(
        fs::read(output.join("tokenizer.json")).unwrap(),
        b"tokenizer.json"
    );
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_the_output_is_not_private() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let root = sample();
    let dir = root.path().join("model");
    let blobs = root.path().join("blobs");
    fs::create_dir(&blobs).unwrap();
    fs::rename(dir.join("model.safetensors"), blobs.join("1")).unwrap();
    symlink("../blobs/1", dir.join("model.safetensors")).unwrap();
    symlink("nowhere", dir.join("broken")).unwrap();
    let plain = root.path().join("plain");
    fs::create_dir(&plain).unwrap();
    let output = root.path().join("out");
    let writer = CheckpointWriter::create(&open(&root), &output, false).unwrap();
    assert_eq!(writer.left_out(), ["broken"]);
    writer.finish().unwrap();
    assert!(
        fs::symlink_metadata(output.join("model.safetensors"))
            .unwrap()
            .is_file()
    );
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&output), mode(&plain));
    // Replacing the folder that the links lead into would remove the source's own weights.
    fs::write(blobs.join("config.json"), "{}").unwrap();
    let error = destination_error(CheckpointWriter::create(&open(&root), &blobs, true));
    assert!(matches!(error, DestinationError::Overlaps { .. }));
}

#[test]
fn dropped_unfinished_it_leaves_nothing() {
    let root = sample();
    let output = root.path().join("new/parents/out");
    let writer = CheckpointWriter::create(&open(&root), &output, false).unwrap();
    assert!(writer.partial().join("model.safetensors").exists());
    drop(writer);
    assert_eq!(names(root.path()), ["model"]);
    CheckpointWriter::create(&open(&root), &output, false)
        .unwrap()
        .finish()
        .unwrap();
    assert_eq!(names(&output), ["config.json", "model.safetensors"]);
}

#[test]
fn an_existing_output_is_replaced_only_when_asked_and_only_at_the_end() {
    let root = sample();
    let output = root.path().join("out");
    fs::create_dir(&output).unwrap();
    fs::write(output.join("keep.txt"), "mine").unwrap();
    let create = |overwrite| CheckpointWriter::create(&open(&root), &output, overwrite);
    assert!(matches!(
        destination_error(create(false)),
        DestinationError::Exists { .. }
    ));
    let refused = |error| matches!(error, DestinationError::NotReplaced { .. });
    assert!(refused(destination_error(create(true))));
    fs::write(output.join("config.json"), r#"{"model_type": "opt"}"#).unwrap();
    fs::write(output.join("pytorch_model.bin"), "old").unwrap();
    assert!(refused(destination_error(create(true))));
    fs::remove_file(output.join("keep.txt")).unwrap();
    drop(create(true).unwrap());
    assert_eq!(names(&output), ["config.json", "pytorch_model.bin"]);
    let writer = create(true).unwrap();
    assert_eq!(names(&output), ["config.json", "pytorch_model.bin"]);
    writer.finish().unwrap();
    assert_eq!(names(&output), ["config.json", "model.safetensors"]);
    assert_eq!(names(root.path()), ["model", "out"]);
    // Something that appears during the work is not replaced unasked.
    let late = root.path().join("late");
    let writer = CheckpointWriter::create(&open(&root), &late, false).unwrap();
    fs::create_dir(&late).unwrap();
    assert!(matches!(
        destination_error(writer.finish()),
        DestinationError::Exists { .. }
    ));
    assert_eq!(names(root.path()), ["late", "model", "out"]);
}

#[test]
fn the_output_may_not_overlap_the_source() {
    let root = sample();
    let dir: PathBuf = root.path().join("model");
    for output in [
        dir.clone(),
        dir.join("out"),
        dir.join("../model"),
        root.path().to_path_buf(),
    ] {
        let error = destination_error(CheckpointWriter::create(&open(&root), &output, true));
        assert!(
            matches!(error, DestinationError::Overlaps { .. }),
            "{}: {error}",
            output.display()
        );
    }
    assert_eq!(names(&dir), ["config.json", "model.safetensors"]);
}

#[test]
fn weights_that_do_not_belong_are_refused() {
    let root = sample();
    let mut writer = CheckpointWriter::create(&open(&root), &root.path().join("out"), false).unwrap();
    let mut write =
        |name, values: &[f32], keep: &[bool]| checkpoint_error(writer.write_weight(name, values, keep));
    assert!(matches!(
        write("nothing", &[], &[]),
        CheckpointError::MissingTensor { .. }
    ));
    assert!(matches!(
        write("a.weight", &[1.0], &[true; 8]),
        CheckpointError::Length { what: "values", .. }
    ));
    assert!(matches!(
        write("a.weight", &[1.0; 8], &[true]),
        CheckpointError::Length {
            what: "mask entries",
            ..
        }
    ));
    assert!(matches!(
        write("a.ids", &[1.0; 2], &[true; 2]),
        CheckpointError::NotWritable { .. }
    ));
    let error = write("z.weight", &[1e9; 8], &[true; 8]);
    assert!(matches!(&error, CheckpointError::DoesNotFit { what, position: 0, .. } if what == "z.weight"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_with_the_path() {
    // /dev/full accepts no byte; as a side file's replacement it stands for a disk that fills up.
    let root = sample();
    let mut writer = CheckpointWriter::create(&open(&root), &root.path().join("out"), false).unwrap();
    std::os::unix::fs::symlink("/dev/full", writer.partial().join("report.json")).unwrap();
    let error = writer.add_file("report.json", b"{}").unwrap_err();
    assert!(
        matches!(&error, Error::Io(IoError { action: "write", path, .. }) if path.ends_with("report.json")),
        "{error}"
    );
}
